"""Starts a program that is told to end when the tour that started it is killed: `leash.py PARENT_PID PROGRAM ARGUMENT…`.

Runs as a file, not as a module of the package, so that it costs a few milliseconds and imports nothing.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replaces this process. Where the system has no such leash, the next tour ends what the last one left."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it was killed before the leash was on
            raise SystemExit(1)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
