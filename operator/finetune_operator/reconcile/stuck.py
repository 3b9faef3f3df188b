"""A pod whose node is gone cannot confirm its own end: after a while it is deleted without asking the node."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.conditions import Why
from finetune_operator.reconcile.plan import DeletePod, Draft


def release(draft: Draft) -> bool:
    """Free the names of pods that should be gone. Should one still run, its late checkpoints are fenced off by attempt."""
    for pod in draft.seen.pods:
        if pod.gone_by is not None and draft.wake_at(pod.gone_by + timedelta(seconds=draft.limits.stuck)):
            draft.act(DeletePod(pod.name, pod.uid, force=True))
            draft.note(
                "Warning", Why.POD_STUCK, f"Pod {pod.name} did not end in time on node {pod.node}; it is removed by force."
            )
    return False
