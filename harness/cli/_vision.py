"""What `harness train` and `harness eval` share: settings from the command line, plugins, progress, rows as JSON."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError, unknown


def pairs(texts: Sequence[str], *, option: str, example: str) -> dict[str, str]:
    """`key=value` texts as a mapping, the last of a key, so that a recipe's can be changed. Raises UsageError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} takes key=value, such as {example}, not {text!r}")
        found[key.strip()] = value.strip()
    return found


def by_owner(settings: Mapping[str, str], *, owners: Sequence[str]) -> dict[str, dict[str, str]]:
    """{"anchor.init": "paper"} → {"anchor": {"init": "paper"}}. Raises UsageError for an owner that is not there."""
    found: dict[str, dict[str, str]] = {owner: {} for owner in owners}
    for key, value in settings.items():
        owner, dot, name = key.partition(".")
        if not dot or owner not in found:
            raise UsageError(f"--set {key}: " + unknown("owner", owner, owners) + "; write owner.option=value")
        found[owner][name] = value
    return found


def with_plugins(paths: Sequence[str], *, resumed: Path | None) -> dict[str, str]:
    """Load plugins; their digests. Of a run that is resumed only those that it was begun with, as they were then.

    Raises UsageError, AttentionError.
    """
    import attentions
    from harness.cases.plugins import asked_again, digests
    from harness.store.runs import read_environment

    if resumed is None:
        found = digests(paths)
    else:
        found = asked_again(read_environment(resumed).get("plugins", {}), paths, source=f"the run in {resumed}")
    for path in paths:
        attentions.load_plugin(path)
    return found


class Progress:
    """A listener of harness.vision.train that writes to stderr: a live line on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False, main: bool = True) -> None:
        self.quiet = quiet or not main
        self.live = not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.steps, self.first, self.begun, self.last, self.open = 0, 0, 0.0, 0.0, False

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            self.close()
            self._write(text + "\n")

    def begin(self, description: str, step: int, steps: int) -> None:
        """What is trained, from which step."""
        self.steps, self.first, self.begun, self.last = steps, step, time.monotonic(), time.monotonic()
        self.say(description + (f", from step {step} on" if step else ""))

    def trained(self, step: int, losses: Mapping[str, float], lr: float, images: int) -> None:
        """The losses over the last steps, their speed and what is left."""
        now = time.monotonic()
        speed, self.last = images / max(now - self.last, 1e-9), now
        left = (now - self.begun) / max(1, step - self.first) * (self.steps - step)
        text = f"step {step}/{self.steps}  loss {losses['loss']:.4g}  lr {lr:.2g}  {speed:.0f} images/s"
        text += f"  (about {int(left // 60)}:{int(left % 60):02d} left)" if step < self.steps else ""
        if self.live:
            self._write(f"\r\x1b[K{text}")
            self.open = True
        else:
            self.say(text)

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """What the validation data say."""
        self.say(f"step {step}/{self.steps}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        self.last = time.monotonic()

    def close(self) -> None:
        """Leave the cursor on an empty line."""
        if self.open:
            self.open = False
            self._write("\n")

    def _write(self, text: str) -> None:
        """Write to stderr; once it takes no more (nobody reads it, its disk is full), the training goes on without."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self.quiet, self.live, self.open = True, False, False


def records(frame: Any) -> list[dict[str, Any]]:
    """Rows of store.read as JSON has them: empty cells are null."""
    return frame.astype(object).where(frame.notna(), None).to_dict(orient="records")


def missing_extra(error: ModuleNotFoundError) -> UsageError:
    """What to install, for a package that vision needs and is not there."""
    return UsageError(f"training needs the package {error.name}: pip install 'attention-harness[vision]'")
