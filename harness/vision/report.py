"""What a finished training leaves: its rows in measurements.csv, its curves, and a figure of predictions."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import torch
from accelerate.utils import send_to_device

from harness import figures
from harness.figures._style import RC
from harness.store.curves import read_curves
from harness.store.record import Reading
from harness.store.selection import Frame
from harness.vision.evaluate import accuracies, parameters
from harness.vision.plan import case_of, shape_of
from harness.vision.runfolder import RunFolder
from harness.vision.session import Session


def finish(session: Session, folder: RunFolder) -> None:
    """Write rows and figures of the weights as they are after the last step, not of the best: choosing on the
    validation data and reporting on them would flatter."""
    data, recipe = session.data["val"], session.plan.recipe
    weights = "averaged weights" if session.ema else "weights"
    note = f"{weights} after step {session.step}"
    if session.best and session.best["step"] != session.step:
        note += f"; best {session.best['metric']} {session.best['value']:.4f} after step {session.best['step']}"
    batch = send_to_device(session.task.collate([data[0]]), session.accelerator.device)
    session.judged.eval()
    with session.accelerator.autocast():
        shape = shape_of(session.judged, lambda: session.task.predict(session.judged, batch))
    case = case_of(session.plan, replace(shape, b=recipe.batch), device=session.place, origin=session.origin)
    readings = [
        *accuracies(session.values, samples=len(data), note=note), _final_loss(session, folder),
        parameters(session.network),
    ]  # fmt: skip
    folder.rows(case, readings)
    draw(session, folder)


def draw(session: Session, folder: RunFolder) -> None:
    """figures/curves and figures/predictions, as PNG."""
    out = folder.path / "figures"
    figures.write(figures.load(folder.path), ["curves"], out, formats=["png"])
    if session.task.draw is not None:
        session.judged.eval()
        with matplotlib.rc_context(RC), torch.no_grad():
            picture = session.task.draw(session.judged, session.data["val"], session.accelerator.device)
            picture.savefig(out / "predictions.png", metadata={"Software": None})


def _final_loss(session: Session, folder: RunFolder) -> Reading:
    """The mean training loss over the last tenth of the steps."""
    curves: Frame = read_curves(folder.path)
    losses = curves[(curves["split"] == "train") & (curves["metric"] == "loss")]
    last = losses[losses["step"] > session.steps * 0.9]
    note = f"training loss, mean over the last {len(last)} log entries"
    return Reading(metric="loss", value=float(last["value"].mean()), samples=len(last), note=note)
