"""Kubernetes events of a job, which `kubectl describe` prints."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from finetune_operator.api import API_VERSION, KIND

MAX_NOTE_BYTES = 1024  # the API server rejects longer notes


class JobReference(NamedTuple):
    """The job that an event is about."""

    namespace: str
    name: str
    uid: str


def build_event(
    job: JobReference, name: str, event_type: str, reason: str, message: str, now: datetime, reporter: str
) -> dict[str, Any]:
    """Build an event of type Normal or Warning; `reporter` is the name of the operator's pod."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": job.namespace, "name": name},
        "eventTime": _micro_time(now),
        "reportingController": "finetune-operator",
        "reportingInstance": reporter,
        "action": "Reconcile",
        "type": event_type,
        "reason": reason,
        "regarding": {"apiVersion": API_VERSION, "kind": KIND, **job._asdict()},
        "note": _shortened(message),
    }


def build_event_series(count: int, now: datetime) -> dict[str, Any]:
    """Build the merge patch for an event that has occurred `count` times, the last time now."""
    return {"series": {"count": count, "lastObservedTime": _micro_time(now)}}


def _micro_time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _shortened(message: str) -> str:
    if len(message.encode()) <= MAX_NOTE_BYTES:
        return message
    return message.encode()[: MAX_NOTE_BYTES - 3].decode(errors="ignore") + "…"
