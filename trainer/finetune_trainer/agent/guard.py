"""Runs a Python module that must not outlive its parent process.

`python -m finetune_trainer.agent.guard SIGNAL PARENT MODULE [ARGUMENT...]` makes the kernel send SIGNAL when the
parent process, whose pid is PARENT, dies for any reason, and then runs the module. A hook between fork and exec could do this
too, but would run Python in a fork of a process with threads. On systems other than Linux the module runs unguarded.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def command(signal_number: signal.Signals, module: str) -> list[str]:
    """The beginning of a command line that runs `module` guarded; append the module's arguments."""
    return [sys.executable, "-m", "finetune_trainer.agent.guard", str(int(signal_number)), str(os.getpid()), module]


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send the signal to this process when its parent dies; exits if the parent is no longer `parent`."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # the parent died before the call of prctl
            sys.exit(f"the parent process {parent} has died")


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose own parents exit, as process 1 of a container always is."""
    if sys.platform == "linux":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def run(module: str, arguments: list[str]) -> None:
    """Run a module as `python -m` does."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


def main() -> None:
    """Run the module of the command line."""
    signal_number, parent, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    die_with_parent(signal_number, parent)
    run(module, sys.argv[4:])


if __name__ == "__main__":
    main()
