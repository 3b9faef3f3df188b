"""Names, labels, ports and paths shared by the operator and the trainer pods (see docs/concepts/worker-group.md)."""

from __future__ import annotations

from finetune_operator.api import GROUP
from finetune_trainer.config.storage_schemes import CLAIMS_DIR as CLAIMS_DIR

JOB_LABEL = f"{GROUP}/job"
NODE_RANK_LABEL = f"{GROUP}/node-rank"
WORKLOAD_HASH_ANNOTATION = f"{GROUP}/spec-hash"
SUSPENDED_ANNOTATION = f"{GROUP}/suspended"

HTTP_PORT = 9400
RENDEZVOUS_PORT = 29400

CONTAINER = "trainer"
WORK_DIR = "/work"
DOCUMENT_DIR = "/etc/finetune"
DOCUMENT_KEY = "train.json"
CREDENTIALS_DIR = "/etc/finetune-credentials"
TERMINATION_LOG = "/dev/termination-log"


def pod_name(job: str, index: int) -> str:
    """Name of the pod of one node. A replacement has the same name, so two operators cannot create two pods for a node."""
    return f"{job}-{index}"
