"""The headless Service of a namespace, through which the pods of its jobs find each other."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.builders.metadata import COMMON_LABELS


def build_service(namespace: str) -> dict[str, Any]:
    """Build the headless Service that gives each trainer pod of a namespace a DNS name.

    One Service is enough for all jobs, because the host names of pods contain the names of their jobs. It belongs to none of
    them and stays when they are deleted. It also publishes pods that are not ready, because a pod becomes ready only after its
    rendezvous with the others.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.SERVICE, "namespace": namespace, "labels": COMMON_LABELS},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": COMMON_LABELS,
            "ports": [
                {"name": "metrics", "port": names.HTTP_PORT, "targetPort": "metrics"},
                {"name": "rendezvous", "port": names.RENDEZVOUS_PORT, "targetPort": "rendezvous"},
            ],
        },
    }
