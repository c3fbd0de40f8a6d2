"""Every command of the README, run from a wheel in an environment of its own.

    python scripts/readme_commands.py                 # empty environment, versions of constraints.txt, as written
    python scripts/readme_commands.py --small         # this environment's packages, small sizes: what the test runs

The wheel is built, installed, and used in an empty folder that holds nothing of the repository but results/cpu. --small
gives `run` and `crossover` sizes that take a second; all other words are the README's. Ends with 1 at the first command
that fails, and prints what it said.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

INCONCLUSIVE = 3  # harness.errors, which is not imported: the wheel under test is

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"--n": "96,128", "--m": "16"}
MORE = {
    "run": ["--heads", "2", "--head-dim", "16", "--budget", "0.05", "--patience", "0"],
    "crossover": ["--high", "256", "--heads", "1", "--budget", "0.1", "--m", "16", "--patience", "0"],
    "doctor": ["--seconds", "0.2"],
}


def commands(text: str) -> list[str]:
    """The lines of the README's plain blocks that call `harness`, without their remarks."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0].strip() for kind, block in found if not kind for line in block.splitlines()]
    return [line for line in lines if line.startswith("harness ") and "COMMAND" not in line]


def snippets(text: str) -> list[str]:
    """The README's Python blocks."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def shrunk(line: str) -> list[str]:
    """The words of a command with small sizes; a resumed run keeps those of its file."""
    words = shlex.split(line)
    if words[1] == "recommend":  # of what is stored
        return words
    for option, value in SMALL.items():
        if option in words:
            words[words.index(option) + 1] = value
    sized = words[1] not in ("run",) or "--resume" not in words
    more = MORE.get(words[1], []) if sized else []
    return (
        words
        + (["--n", SMALL["--n"], "--m", SMALL["--m"]] if words[1] == "run" and "--n" not in words and sized else [])
        + more
    )


def wheel(folder: Path) -> Path:
    """The project's wheel, built into a folder."""
    subprocess.run([_uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def install(folder: Path, built: Path, *, small: bool) -> Path:
    """The bin folder of a new environment with the wheel: alone with its dependencies, or on this one's packages."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    words = [_uv(), "pip", "install", "--quiet", "--python", str(python), str(built)]
    if small:
        purelib = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (purelib / "packages_of_the_other.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        words += ["--no-deps", "--offline"]
    else:
        words += ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run(words, check=True)
    return folder / "bin"


def prepare(place: Path, text: str) -> None:
    """What the README's commands speak of: a file of one's own, the stored results, and two runs to compare."""
    (place / "results").mkdir()
    shutil.copytree(ROOT / "results" / "cpu" / "sweep", place / "results" / "cpu" / "sweep")
    for name in ("a", "b"):
        shutil.copytree(ROOT / "results" / "cpu" / "sweep", place / "results" / name)
    for source in snippets(text):
        name = re.match(r"# (\w+\.py)\n", source)
        if name:
            (place / name.group(1)).write_text(source, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run them all; print each with its seconds."""
    if arguments not in ([], ["--small"]):
        sys.exit(__doc__)
    small, text = bool(arguments), (ROOT / "README.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as top:
        place = Path(top, "place")
        place.mkdir()
        programs = install(Path(top, "environment"), wheel(Path(top, "wheel")), small=small)
        prepare(place, text)
        environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONNOUSERSITE": "1"}
        environment.pop("PYTHONPATH", None)
        todo = [shrunk(line) if small else shlex.split(line) for line in commands(text)]
        draw = "import torch\nq, k, v = torch.randn(3, 1, 4, 4096, 64)\n"
        todo += [["python", "-c", draw + source] for source in snippets(text) if not source.startswith("# ")]
        for words in todo:
            done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
            shown = "a Python snippet" if words[0] == "python" else shlex.join(words)
            # A crossover has no answer where the machine was not quiet, which is an answer too
            refused = words[:2] == ["harness", "crossover"] and done.returncode == INCONCLUSIVE
            print(f"{'ok' if done.returncode == 0 or refused else done.returncode}  {shown}", flush=True)
            if done.returncode and not refused:
                print(done.stdout + done.stderr, file=sys.stderr)
                return 1
    return 0


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        sys.exit("uv is not installed: pip install uv")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
