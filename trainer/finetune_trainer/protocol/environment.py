"""Environment variables that the operator sets for the ranks of a pod."""

from __future__ import annotations

REQUESTED_GPUS = "FINETUNE_REQUESTED_GPUS"
"""The number of GPUs in the pod's resource requests; unset if it requests none."""

COMPLETES_ONCE = "FINETUNE_COMPLETES_ONCE"
"""Set to 1 if a run that has completed reports the same outcome when it is started again, instead of being repeated."""
