"""A child process that does not outlive its parent, however that ended. No torch.

parent.die_with()       # first thing in the child
"""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h


def die_with() -> None:
    """Ask Linux to kill this process when its parent dies; leave Ctrl-C to the parent, on every system."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
