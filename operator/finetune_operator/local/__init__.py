"""The same document without Kubernetes: every node of a job is an agent that runs here, as a process."""

from finetune_operator.local.predict import predict
from finetune_operator.local.preflight import preflight
from finetune_operator.local.runner import RunRefused, run
from finetune_operator.local.uris import missing_files

__all__ = ["RunRefused", "missing_files", "predict", "preflight", "run"]
