"""Names, labels, ports and paths shared by the operator and the trainer pods (see docs/concepts/worker-group.md)."""

from __future__ import annotations

from finetune_operator.api import GROUP
from finetune_trainer.config.storage_schemes import CLAIMS_DIR as CLAIMS_DIR

JOB_LABEL = f"{GROUP}/job"
NODE_RANK_LABEL = f"{GROUP}/node-rank"
SPEC_HASH_ANNOTATION = f"{GROUP}/spec-hash"
SUSPENDED_ANNOTATION = f"{GROUP}/suspended"
REVISION_LABEL = f"{GROUP}/revision"
GENERATION_ANNOTATION = f"{GROUP}/generation"
NODES_ANNOTATION = f"{GROUP}/nodes"
DOCUMENT_ANNOTATION = f"{GROUP}/document"

HTTP_PORT = 9400
RENDEZVOUS_PORT = 29400

SERVICE = "finetune-trainers"
CONTAINER = "trainer"
WORK_VOLUME = "work"
SHARED_MEMORY_VOLUME = "shm"
WORK_DIR = "/work"
DOCUMENT_DIR = "/etc/finetune"
DOCUMENT_KEY = "train.json"
CREDENTIALS_DIR = "/etc/finetune-credentials"
TERMINATION_LOG = "/dev/termination-log"


def pod_name(job: str, index: int, *, is_alternate: bool = False) -> str:
    """One of the two names that the pods of a node have.

    A replacement has the alternate name while the failed pod with the other one is kept, and the next replacement has the
    first name again. With only two names, of which each is in use, two operators cannot create two pods for a node. The letter
    keeps the alternate name distinct from every pod name of a job called `<job>-<index>`.
    """
    return f"{job}-{index}-r" if is_alternate else f"{job}-{index}"


def pod_names(job: str, index: int) -> tuple[str, str]:
    """Both names of the pods of one node."""
    return pod_name(job, index), pod_name(job, index, is_alternate=True)


def pod_hostname(job: str, index: int) -> str:
    """Host name of the pod of one node, which does not change when the pod is replaced."""
    return pod_name(job, index)
