"""The NetworkPolicy of pods that an earlier operator process created, perhaps with other settings."""

from __future__ import annotations

from finetune_operator.reconcile.plan import PlanBuilder, UpdateNetworkPolicy


def update_network_policy(plan: PlanBuilder) -> bool:
    """Update the NetworkPolicy once in the life of an operator process: its settings change only when it is restarted."""
    if plan.pods and not plan.observed.network_policy_is_current:
        plan.add_action(UpdateNetworkPolicy())
    return False
