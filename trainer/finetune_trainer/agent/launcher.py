"""Starts the processes of ranks: as forks of the spare when it is ready, otherwise as new interpreters."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

from finetune_trainer.agent import guard
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.spare import Spare


class RankProcess(Protocol):
    """A started process; `subprocess.Popen` is one. The pid is also the id of its process group."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def terminate(self) -> None: ...


class Launcher:
    """Starts ranks of one node. They get the same environment, arguments and descriptors in either way."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self.spare = Spare(settings, environment)
        self._module = settings.rank_module
        self._environment = dict(environment)

    def start(self, arguments: Sequence[str], telemetry: int) -> RankProcess:
        """Start a rank that sends its events to the descriptor `telemetry`."""
        forked = self.spare.fork(arguments, telemetry)
        if forked is not None:
            return forked
        return subprocess.Popen(
            [*guard.command(signal.SIGKILL, self._module), *arguments, "--telemetry-fd", str(telemetry)],
            pass_fds=(telemetry,),
            env=self._environment,
            process_group=0,
            stdin=subprocess.DEVNULL,
        )
