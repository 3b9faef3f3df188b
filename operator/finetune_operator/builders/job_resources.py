"""What the pods of a job share: names to find each other by, and the document."""

from __future__ import annotations

import json
from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.metadata import metadata
from finetune_trainer.config import TrainSpec


def service(job: FineTuneJob) -> dict[str, Any]:
    """A headless Service gives every pod a DNS name; also before it is ready, for it gets ready by meeting the others."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, job.metadata.name),
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


def config_map(job: FineTuneJob) -> dict[str, Any]:
    """The trainer's part of the document, defaults filled in, so that a pod made later reads the same as the first."""
    document = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(TrainSpec.model_fields))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, job.metadata.name),
        "immutable": True,
        "data": {names.DOCUMENT_KEY: json.dumps(document, indent=2, ensure_ascii=False)},
    }
