"""The FineTuneJob document. The CRD and the reference are generated from these models."""

from finetune_operator.api.job import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    SHORT_NAME,
    VERSION,
    FineTuneJob,
    FineTuneJobSpec,
    NodeLimit,
)
from finetune_operator.api.run_policy import RunPolicy
from finetune_operator.api.scheduling import Scheduling
from finetune_operator.api.status import (
    Condition,
    ElasticStatus,
    Failure,
    JobStatus,
    PendingPods,
    Phase,
    Restarts,
    WorkersStatus,
)
from finetune_operator.api.workers import Workers

__all__ = [
    "API_VERSION", "GROUP", "KIND", "PLURAL", "SHORT_NAME", "VERSION", "Condition", "ElasticStatus", "Failure", "FineTuneJob",
    "FineTuneJobSpec", "JobStatus", "NodeLimit", "PendingPods", "Phase", "Restarts", "RunPolicy", "Scheduling", "Workers",
    "WorkersStatus",
]  # fmt: skip
