"""A Kubernetes event about a job, for `kubectl describe`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from finetune_operator.api import API_VERSION, KIND

MOST_CHARACTERS = 1000  # the API server refuses longer notes


def event(
    namespace: str, name: str, uid: str, kind: str, reason: str, message: str, now: datetime, instance: str
) -> dict[str, Any]:
    """An event of type `kind` (Normal or Warning); `instance` is the operator's pod."""
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "generateName": f"{name}-"},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "finetune-operator",
        "reportingInstance": instance,
        "action": "Reconcile",
        "type": kind,
        "reason": reason,
        "regarding": {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": name, "uid": uid},
        "note": message if len(message) <= MOST_CHARACTERS else message[: MOST_CHARACTERS - 1] + "…",
    }
