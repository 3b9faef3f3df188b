"""Kubernetes events of a job, which `kubectl describe` prints."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from finetune_operator.api import API_VERSION, KIND

MAX_NOTE_CHARACTERS = 1000  # the API server rejects notes longer than 1024 bytes


class JobReference(NamedTuple):
    """The job that an event is about."""

    namespace: str
    name: str
    uid: str


def build_event(job: JobReference, event_type: str, reason: str, message: str, now: datetime, reporter: str) -> dict[str, Any]:
    """Build an event of type Normal or Warning; `reporter` is the name of the operator's pod."""
    note = message
    if len(note) > MAX_NOTE_CHARACTERS:
        note = f"{message[: MAX_NOTE_CHARACTERS - 1]}…"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": job.namespace, "generateName": f"{job.name}-"},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "finetune-operator",
        "reportingInstance": reporter,
        "action": "Reconcile",
        "type": event_type,
        "reason": reason,
        "regarding": {"apiVersion": API_VERSION, "kind": KIND, **job._asdict()},
        "note": note,
    }
