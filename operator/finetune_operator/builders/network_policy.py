"""The NetworkPolicy of a job: who may open connections to its pods."""

from __future__ import annotations

from typing import Any

from finetune_operator import names
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.metadata import build_metadata
from finetune_operator.settings import Settings


def build_network_policy(job: FineTuneJob, settings: Settings) -> dict[str, Any] | None:
    """Build the NetworkPolicy; None if the operator creates none, or if the job uses the node's network.

    The pods of the job reach each other on all ports, because NCCL and Gloo choose theirs. The peers of the settings reach the
    HTTP port only. Outgoing connections are not limited: where data and models are stored is the user's choice.
    """
    if settings.network_policy_peers is None or job.spec.workers.template.host_network:
        return None
    pods = {"matchLabels": {names.JOB_LABEL: job.metadata.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(job, job.metadata.name),
        "spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": pods}]},
                {"from": settings.network_policy_peers, "ports": [{"port": names.HTTP_PORT, "protocol": "TCP"}]},
            ],
        },
    }
