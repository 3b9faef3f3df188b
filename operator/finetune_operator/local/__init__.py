"""The same document without Kubernetes: every node of a job is an agent that runs here, as a process."""

from finetune_operator.local.addresses import missing_files
from finetune_operator.local.predict import predict
from finetune_operator.local.preflight import preflight
from finetune_operator.local.runner import RunRefused, run

__all__ = ["RunRefused", "missing_files", "predict", "preflight", "run"]
