"""Every condition reason and every exit code has an entry in the troubleshooting pages."""

from __future__ import annotations

from finetune_operator.api.conditions import POD_FAILURE_REASONS, ConditionReason
from finetune_operator.api.failure_policy import FAILURE_REASONS
from finetune_operator.codegen import troubleshooting_pages
from finetune_operator.codegen.condition_advice import CONDITION_ADVICE
from finetune_operator.codegen.exit_advice import EXIT_ADVICE
from finetune_operator.reconcile.pod_failure import DEFAULT_VERDICTS
from finetune_trainer.protocol.outcome import EXIT_POLICIES, Reason


def test_every_condition_reason_has_advice() -> None:
    assert set(CONDITION_ADVICE) == set(ConditionReason)
    page = troubleshooting_pages.conditions()
    assert [reason for reason in ConditionReason if f"\n## {reason}\n" not in page] == []


def test_every_exit_code_has_advice() -> None:
    assert set(EXIT_ADVICE) == set(EXIT_POLICIES) == set(Reason)
    page = troubleshooting_pages.exit_codes()
    assert [reason for reason in Reason if f"\n## {reason}\n" not in page] == []
    for reason, policy in EXIT_POLICIES.items():
        assert f"Exit code {policy.exit_code}: {policy.meaning}." in page, reason


def test_every_piece_of_advice_is_complete() -> None:
    entries = [*CONDITION_ADVICE.items(), *EXIT_ADVICE.items()]
    for reason, advice in entries:
        assert all(advice), reason
        for sentence in (advice.cause, advice.remedy):
            assert sentence.endswith("."), reason


def test_every_failure_reason_has_its_default() -> None:
    assert set(DEFAULT_VERDICTS) == set(POD_FAILURE_REASONS)
    page = troubleshooting_pages.failures()
    assert [reason for reason in FAILURE_REASONS if f"| [{reason}](" not in page] == []
    assert "| [OutOfMemory](exit-codes.md#outofmemory) | exit code 4: " in page
    assert "| [Disrupted](conditions.md#disrupted) | the status of the pod | pod replaced; counts only beyond " in page
