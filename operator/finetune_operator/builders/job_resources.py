"""The objects that the pods of a job share: a Service for their DNS names, and a ConfigMap with the document."""

from __future__ import annotations

import json
from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.metadata import build_metadata


def build_service(job: FineTuneJob) -> dict[str, Any]:
    """Build the headless Service that gives each pod a DNS name.

    It also publishes pods that are not ready, because a pod becomes ready only after its rendezvous with the others.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(job, job.metadata.name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.JOB_LABEL: job.metadata.name},
            "ports": [
                {"name": "metrics", "port": names.HTTP_PORT, "targetPort": "metrics"},
                {"name": "rendezvous", "port": names.RENDEZVOUS_PORT, "targetPort": "rendezvous"},
            ],
        },
    }


def build_config_map(job: FineTuneJob) -> dict[str, Any]:
    """Build the ConfigMap with the trainer's part of the document.

    It includes the defaults, so that a pod created by a later version of the operator reads the same document.
    """
    document = job.spec.train_document()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": build_metadata(job, names.config_map_name(job)),
        "immutable": True,
        "data": {names.DOCUMENT_KEY: json.dumps(document, indent=2, ensure_ascii=False)},
    }
