"""Environment variables that the operator sets for the ranks of a pod."""

from __future__ import annotations

REQUESTED_GPUS = "FINETUNE_REQUESTED_GPUS"
"""The number of GPUs in the pod's resource requests; unset if it requests none."""
