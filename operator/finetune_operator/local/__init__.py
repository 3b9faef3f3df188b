"""Runs a job without Kubernetes: each node of the job is an agent process on this machine."""

from finetune_operator.local.errors import LocalRunError
from finetune_operator.local.runner import run
from finetune_operator.local.trainer_commands import predict, preflight
from finetune_operator.local.uris import missing_files

__all__ = ["LocalRunError", "missing_files", "predict", "preflight", "run"]
