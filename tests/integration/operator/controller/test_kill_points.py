"""The operator is killed before and after each of its writes: the outcome is that of an operator that was never killed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.killed_operator import KilledOperator

from finetune_trainer.protocol.outcome import EXIT_POLICIES, Outcome, Reason

Step = Callable[[KilledOperator], object]
POLICY: dict[str, Any] = {"ttlSecondsAfterFinished": 60}


def create(operator: KilledOperator) -> None:
    operator.client.put_job(**POLICY)


def run_all(operator: KilledOperator) -> None:
    for body in operator.current_pods():
        ready = [{"type": "Ready", "status": "True"}]
        operator.set_status(body, phase="Running", podIP="10.0.0.1", conditions=ready)


def end(operator: KilledOperator, node: int, reason: Reason, **outcome: Any) -> None:
    message = Outcome(reason=reason, **outcome).model_dump_json(by_alias=True, exclude_none=True)
    terminated = {"exitCode": EXIT_POLICIES[reason].exit_code, "reason": "Error", "message": message}
    phase = "Succeeded" if reason is Reason.COMPLETE else "Failed"
    containers = [{"name": "trainer", "state": {"terminated": terminated}}]
    operator.set_status(operator.current_pods()[node], phase=phase, containerStatuses=containers)


def evict(operator: KilledOperator) -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    operator.set_status(operator.current_pods()[0], phase="Failed", conditions=[target])


def lose(operator: KilledOperator) -> None:
    del operator.client.objects["Pod", operator.current_pods()[1]["metadata"]["name"]]


def complete(operator: KilledOperator) -> None:
    end(operator, 1, Reason.COMPLETE)
    end(operator, 0, Reason.COMPLETE, model="s3://out/j/model", metrics={"loss": 1.5})


def advance(operator: KilledOperator) -> None:
    operator.now = operator.now.replace(minute=operator.now.minute + 10)


SCENARIOS: dict[str, list[Step]] = {
    "restart after a crash, complete, time to live": [
        create, run_all, lambda operator: end(operator, 1, Reason.CRASHED), run_all, complete, advance,
    ],
    "drain, lost pod": [create, run_all, evict, run_all, advance, lose, run_all],
    "suspend and resume": [
        create,
        run_all,
        lambda operator: operator.client.put_job(**POLICY, suspend=True),
        lambda operator: operator.client.put_job(**POLICY),
        run_all,
    ],
    "fail, leftover pods": [create, run_all, lambda operator: end(operator, 1, Reason.INVALID_DATA), advance],
    "complete, leftover pods": [create, run_all, lambda operator: end(operator, 0, Reason.COMPLETE), advance],
    "deadline": [lambda operator: operator.client.put_job(activeDeadlineSeconds=60), run_all, advance],
}  # fmt: skip


async def play(
    steps: list[Step], kill_at: float = float("inf"), takes_effect: bool = False
) -> tuple[KilledOperator, list[str]]:
    """Play a scenario. Returns the operator, and all that a user sees after each step."""
    operator, seen = KilledOperator(kill_at, takes_effect), []
    for step in steps:
        step(operator)
        await operator.settle()
        objects = {f"{kind} {name}": body.get("status") for (kind, name), body in operator.client.objects.items()}
        # UIDs depend on the number of writes; that each pod was created once is compared with the log.
        seen.append(re.sub(r"uid-\d+", "uid", json.dumps(objects, indent=1, sort_keys=True)))
    creations = [line for line in operator.client.log if line.startswith("create Pod")]
    return operator, [*seen, *sorted(creations)]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_outcome_is_the_same_after_a_kill_at_any_write(name: str) -> None:
    calm, expected = await play(SCENARIOS[name])
    assert calm.client.writes > 5
    for write in range(1, calm.client.writes + 1):
        for takes_effect in (False, True):
            operator, seen = await play(SCENARIOS[name], write, takes_effect)
            assert operator.client.writes >= write, "the operator was killed"
            assert seen == expected, f"killed {'after' if takes_effect else 'before'} write {write}"
