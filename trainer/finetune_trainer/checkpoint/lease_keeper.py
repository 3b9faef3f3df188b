"""Takes the lease of a storage, keeps it alive in a thread, and releases it."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.checkpoint.lease import (
    BEAT_SECONDS,
    STALE_SECONDS,
    Decision,
    LeaseRecord,
    LeaseWatch,
    lost,
    parse_record,
    refused,
)
from finetune_trainer.protocol.outcome import TrainerError
from finetune_trainer.storage.base import Storage

LEASE = "lease"  # path of the record in the storage
RELEASE_SECONDS = 10.0  # how long the end of a run waits for a storage that does not answer
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds between two beats, until a lease without beats is stale, and between two looks at another run's lease."""

    beat: float = BEAT_SECONDS
    stale: float = STALE_SECONDS
    poll: float = 2.0


DEFAULT_TIMES = LeaseTimes()


class LeaseKeeper:
    """One process's hold of a storage.

    A storage that does not answer never ends the run: the lease is kept again when it answers. `on_lost` is called, in the
    keeper's thread, if another process holds the lease then.
    """

    def __init__(
        self, storage: Storage, owner: str, holder: str, on_lost: Callable[[TrainerError], None],
        times: LeaseTimes = DEFAULT_TIMES, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`owner` identifies the run, `holder` names it in messages."""
        self._storage, self._on_lost, self._times, self._clock = storage, on_lost, times, clock
        self._record = LeaseRecord(owner=owner, holder=holder, session=uuid.uuid4().hex)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def acquire(self, waiting: Callable[[str], None]) -> None:
        """Take the lease and keep it from now on; `waiting` receives a sentence while another run may still be alive.

        Raises ConfigurationError if another run is alive, and StorageError when the storage does not answer.
        """
        watch = LeaseWatch(self._record.owner, self._times.stale)
        while True:
            found = self._storage.get_versioned(LEASE)
            record = parse_record(found.content) if found else None
            decision = watch.observe(record, self._clock())
            if record is not None and decision is Decision.REFUSE:
                raise refused(self._storage.uri, record)
            if decision is Decision.TAKE and self._write(found.version if found else None):
                break
            if record is not None and decision is Decision.WAIT:
                waiting(
                    f"{record.holder} has not released {self._storage.uri}: waiting up to {self._times.stale:.0f} s to see "
                    "whether it is alive"
                )
                time.sleep(self._times.poll)
        self._thread.start()

    def release(self) -> None:
        """Stop keeping the lease and delete it, unless the storage does not answer."""
        self._ended.set()
        deleting = threading.Thread(target=self._delete, name="lease-release", daemon=True)
        deleting.start()
        deleting.join(RELEASE_SECONDS)

    def _keep(self) -> None:
        is_answered = True
        while not self._ended.wait(self._times.beat):
            try:
                record = self._beat()
            except Exception as error:  # also an unexpected one: without beats another run would take the storage over
                if is_answered:
                    log.warning("the lease of the storage could not be kept, which is tried again: %s", error)
                is_answered = False
                continue
            is_answered = True
            if record is not None:
                self._ended.set()
                self._on_lost(lost(self._storage.uri, record, self._record.owner))

    def _beat(self) -> LeaseRecord | None:
        """Show that this process is alive; returns the record of another process if that holds the lease now."""
        found = self._storage.get_versioned(LEASE)
        record = parse_record(found.content) if found else None
        if record is not None and record.session != self._record.session:
            return record
        # If another process has written in between, the next beat finds its record.
        self._write(found.version if found else None)
        return None

    def _write(self, version: str | None) -> bool:
        """Write the next record in place of the one with this version; False if there is another one by now."""
        record = self._record.next_beat()
        is_written = self._storage.put_if_unchanged(LEASE, record.model_dump_json().encode(), version)
        if is_written:
            self._record = record
        return is_written

    def _delete(self) -> None:
        self._thread.join()  # a beat that is on its way would write the lease again
        try:
            found = self._storage.get_versioned(LEASE)
            if found is not None and parse_record(found.content).session == self._record.session:
                self._storage.delete(LEASE)
        except TrainerError as error:
            log.warning("the lease of the storage could not be released: %s", error)
