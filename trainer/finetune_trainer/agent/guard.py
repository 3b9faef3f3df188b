"""Starts a Python module that must not outlive the process that started it.

`python -m finetune_trainer.agent.guard SIGNAL PARENT MODULE [ARGUMENT...]` asks the kernel for SIGNAL at the death of the
parent (its pid is PARENT), however that dies, and then becomes the module. A hook between fork and exec would do the same,
but runs Python in a fork of a process with threads. Linux; elsewhere the module runs unguarded.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1


def command(signal_number: signal.Signals, module: str) -> list[str]:
    """The beginning of a command line that runs `module` guarded; its arguments follow."""
    return [sys.executable, "-m", "finetune_trainer.agent.guard", str(int(signal_number)), str(os.getpid()), module]


def main() -> None:
    """Become the module named on the command line."""
    signal_number, parent, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # it died before the kernel was asked
            sys.exit(f"process {parent}, which started this one, is gone")
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
