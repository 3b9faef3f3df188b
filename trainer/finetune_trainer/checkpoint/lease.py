"""The lease of a storage: which run may use it. Decisions only; `lease_keeper` reads and writes.

The holder writes the record again and again with a higher `beat`. An observer never compares clocks of two machines: a lease is
alive if its record changes while the observer watches, and stale if it does not change for `STALE_SECONDS` of the observer's
clock. A run takes its own lease at once, because its launcher has made sure that its earlier processes are gone or are
cut off; such a process notices that its session has ended.
"""

from __future__ import annotations

from enum import Enum

from pydantic import Field, ValidationError

from finetune_trainer.config.base import Section
from finetune_trainer.protocol.outcome import ConfigurationError, StorageError, TrainerError

BEAT_SECONDS = 10.0
STALE_SECONDS = 120.0  # outlasts an outage of the storage of 90 s, and a request that is repeated


class LeaseRecord(Section):
    """The stored lease."""

    owner: str = Field(description="The run: the UID of the job, or what identifies the state directory of a local run.")
    holder: str = Field(description="The run in words, for messages.")
    session: str = Field(description="One process of the run.")
    beat: int = Field(0, ge=0, description="Raised while the process lives.")

    def next_beat(self) -> LeaseRecord:
        """The record that shows that the holder is alive."""
        return self.model_copy(update={"beat": self.beat + 1})


class Decision(Enum):
    """What a run that requests the lease does next."""

    TAKE = "take"
    WAIT = "wait"
    REFUSE = "refuse"


class LeaseWatch:
    """Decides whether a run may take the lease, from what it reads of it."""

    def __init__(self, owner: str, stale_seconds: float = STALE_SECONDS) -> None:
        """`owner` is the run that requests the lease."""
        self._owner, self._stale_seconds = owner, stale_seconds
        self._seen: LeaseRecord | None = None
        self._since = 0.0

    def observe(self, record: LeaseRecord | None, now: float) -> Decision:
        """Decide after reading `record` (None if there is no lease) at the time `now` of a monotonic clock, in seconds."""
        if record is None or record.owner == self._owner:
            return Decision.TAKE
        if self._seen is None:
            self._seen, self._since = record, now
            return Decision.WAIT
        if record != self._seen:
            return Decision.REFUSE
        return Decision.TAKE if now - self._since >= self._stale_seconds else Decision.WAIT


def parse_record(content: bytes) -> LeaseRecord:
    """The stored record; one that is unreadable has no owner, and is stale if it stays as it is."""
    try:
        return LeaseRecord.model_validate_json(content)
    except ValidationError:
        return LeaseRecord(owner="", holder="an unknown run", session=content.hex())


def refused(uri: str, record: LeaseRecord) -> ConfigurationError:
    """The error of a run whose storage is in use."""
    return ConfigurationError(
        f"spec.checkpoint.storage: {uri} is in use by {record.holder}, which is alive: wait until it ends, stop it, or choose "
        "another spec.checkpoint.storage"
    )


def lost(uri: str, record: LeaseRecord, owner: str) -> TrainerError:
    """The error of a run, `owner`, whose lease has `record` now."""
    if record.owner == owner:
        return StorageError(f"spec.checkpoint.storage: a later attempt of this run, {record.holder}, has taken over {uri}")
    return ConfigurationError(
        f"spec.checkpoint.storage: {record.holder} has taken over {uri}, because this run had shown no sign of life there for "
        f"{STALE_SECONDS:.0f} s, so this run stops: choose another spec.checkpoint.storage for one of them"
    )
