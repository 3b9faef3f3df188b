"""Runs a job without Kubernetes: each node of the job is an agent process on this machine."""

from finetune_operator.local.errors import LocalRunError
from finetune_operator.local.runner import run
from finetune_operator.local.trainer_commands import check_data, predict, preflight, preview_data
from finetune_operator.local.uris import missing_files

__all__ = ["LocalRunError", "check_data", "missing_files", "predict", "preflight", "preview_data", "run"]
