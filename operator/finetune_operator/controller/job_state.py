"""State of jobs that only this process holds.

Losing it costs a few requests, and at most one count of a pod that vanished before it ran: all counts that bound repetitions
are in the status of the job.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from finetune_operator.api import FineTuneJob, JobStatus
from finetune_operator.builders import Placement
from finetune_operator.client.types import JobKey
from finetune_operator.controller.informer_cache import CachedJob
from finetune_operator.controller.token_bucket import TokenBucket
from finetune_operator.reconcile import Pod, ReasonMessage
from finetune_trainer.protocol.outcome import RunStatus

CONTACT_SECONDS = 10.0  # a pod that has not answered for this long is silent
WRITE_BURST = 5  # status writes of one job that are permitted at once
WRITE_INTERVAL = 2.0  # seconds between further ones


class UnreadableStatusError(Exception):
    """Another version of the operator has written a status that this version cannot read; the message says why."""


@dataclass(slots=True)
class PodContact:
    """When a pod last answered a request, and since when it has not: monotonic seconds, infinite if never."""

    answered: float = -math.inf
    silent_since: float = math.inf


@dataclass(slots=True)
class JobState:
    """The last status write of a job, the last create error, the last run status, and the contacts with its pods by UID.

    `resource_version` is that of the last write; `last_write` is its time in monotonic seconds, `changed_since` that of the
    first change that is not written yet. `write_budget` limits writes of conditions that flap, such as an image that is pulled
    again and again. `reported_status_error` is why the status cannot be read, once it was reported.

    `placement` is where the queue places the pods, `workload_hash` is a document and the hash of the Workload that it should
    have, and `workload_retries` counts how often its Workload was rejected.
    `create_failures` is the number of create requests in a row that the API server rejected. `pods` are those of the last
    reconcile. `start_problems` are the kubelet's warnings about pods that do not start, by UID, read at `problems_checked` in
    monotonic seconds. `has_network_policy` is whether this process has created or updated the NetworkPolicy of the job.
    """

    uid: str
    resource_version: int = 0
    status: JobStatus | None = None
    last_write: float = -math.inf
    changed_since: float | None = None
    write_budget: TokenBucket = field(default_factory=lambda: TokenBucket(WRITE_BURST, WRITE_INTERVAL))
    create_error: ReasonMessage | None = None
    workload_error: ReasonMessage | None = None
    workload_retries: int = 0
    placement: Placement | None = None
    has_network_policy: bool = False
    workload_hash: tuple[FineTuneJob, str] | None = None
    create_failures: int = 0
    create_retry_time: datetime | None = None
    pods: tuple[Pod, ...] = ()
    start_problems: dict[str, ReasonMessage] = field(default_factory=dict)
    problems_checked: float = -math.inf
    run: RunStatus | None = None
    run_pod_uid: str = ""
    contacts: dict[str, PodContact] = field(default_factory=dict)
    reported_status_error: str = ""

    def latest_status(self, job: CachedJob) -> tuple[JobStatus, int]:
        """The newest status and its resourceVersion: the last write of this process, or the cached one if that is newer.

        Raises UnreadableStatusError if this version of the operator cannot read it.
        """
        if self.status is not None and self.resource_version >= job.resource_version:
            return self.status, self.resource_version
        if job.status is None:
            raise UnreadableStatusError(job.status_error)
        return job.status, job.resource_version

    def record_contact(self, pod_uid: str, has_answered: bool) -> None:
        """Record whether a pod answered a request."""
        contact, now = self.contacts.setdefault(pod_uid, PodContact()), time.monotonic()
        if has_answered:
            contact.answered, contact.silent_since = now, math.inf
        else:
            contact.silent_since = min(contact.silent_since, now)

    def pods_in_contact(self, pod_uids: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
        """The responding and the silent ones of some pods; the contacts of all other pods are forgotten."""
        self.contacts = {uid: self.contacts[uid] for uid in pod_uids if uid in self.contacts}
        limit = time.monotonic() - CONTACT_SECONDS
        responding = frozenset(uid for uid, contact in self.contacts.items() if contact.answered > limit)
        silent = frozenset(uid for uid, contact in self.contacts.items() if contact.silent_since <= limit)
        return responding - silent, silent


class JobStates:
    """The state of every job by key. A new job of the same name starts with an empty state."""

    def __init__(self) -> None:
        self._states: dict[JobKey, JobState] = {}

    def get(self, job: CachedJob) -> JobState:
        """The state of a job."""
        state = self._states.get(job.key)
        if state is None or state.uid != job.uid:
            state = self._states[job.key] = JobState(job.uid)
        return state

    def remove(self, key: JobKey) -> None:
        """Remove the state of a deleted job."""
        self._states.pop(key, None)

    def is_own_write(self, job: CachedJob) -> bool:
        """Whether the cached job is the result of this process's last status write, or older than it."""
        state = self._states.get(job.key)
        return state is not None and state.uid == job.uid and job.resource_version <= state.resource_version

    def record_run(self, job: CachedJob, pod_uid: str, run: RunStatus) -> bool:
        """Record the run status that a pod reported. Returns whether it changed."""
        state = self.get(job)
        if (state.run_pod_uid, state.run) == (pod_uid, run):
            return False
        state.run_pod_uid, state.run = pod_uid, run
        return True
