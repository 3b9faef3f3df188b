"""Holds the checkpoint storage for a run, so that no other run uses it meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

from finetune_trainer.checkpoint.lease_keeper import DEFAULT_TIMES, LeaseKeeper, LeaseTimes
from finetune_trainer.protocol.events import Alive, Ended, EventSink
from finetune_trainer.protocol.outcome import Outcome, TrainerError
from finetune_trainer.storage.base import Storage
from finetune_trainer.training.launch_context import LaunchContext

log = logging.getLogger(__name__)


@contextlib.contextmanager
def hold_storage(
    storage: Storage, launch: LaunchContext, report: EventSink, times: LeaseTimes = DEFAULT_TIMES
) -> Iterator[None]:  # fmt: skip
    """Hold the lease of the storage; the first rank does it for all.

    Raises ConfigurationError if another run holds it and is alive. If another run takes the lease over later, because this one
    could not show that it is alive, the process ends at once: whatever it computes could no longer be stored.
    """

    def end_process(error: TrainerError) -> None:
        log.error("%s: %s", error.reason, error)
        outcome = Outcome(reason=error.reason, message=str(error), rank=launch.rank)
        report(Ended(outcome=outcome))
        logging.shutdown()
        os._exit(outcome.exit_policy.exit_code)

    holder = f"the run {launch.job} on {socket.gethostname()} (process {os.getpid()})"
    keeper = LeaseKeeper(storage, launch.run_id, holder, end_process, times)
    keeper.acquire(lambda sentence: report(Alive(activity="Preparing", detail=sentence)))
    try:
        yield
    finally:
        keeper.release()
