"""All data checks, in the order in which their findings are reported: the worst first."""

from __future__ import annotations

from finetune_trainer.data.checks.balance import BALANCE
from finetune_trainer.data.checks.base import Check, CheckName
from finetune_trainer.data.checks.duplicates import DUPLICATES
from finetune_trainer.data.checks.encoding import (
    IDENTICAL_ANSWERS,
    INCONSISTENT_TAGS,
    LOST_ANSWERS,
    OPEN_END,
    QUESTION_TRUNCATION,
    TARGET_TRUNCATION,
    TRUNCATION,
    UNANSWERED,
    UNLABELED,
    UNLEARNABLE,
    UNTOKENIZED_WORDS,
    UNWRITTEN_NAMES,
)
from finetune_trainer.data.checks.leakage import LEAKAGE
from finetune_trainer.data.checks.near_duplicates import NEAR_DUPLICATES
from finetune_trainer.data.checks.personal_data import PERSONAL_DATA

CHECKS: tuple[Check, ...] = (
    LEAKAGE,
    PERSONAL_DATA,
    UNLABELED,
    UNANSWERED,
    IDENTICAL_ANSWERS,
    UNLEARNABLE,
    INCONSISTENT_TAGS,
    LOST_ANSWERS,
    UNTOKENIZED_WORDS,
    TRUNCATION,
    QUESTION_TRUNCATION,
    TARGET_TRUNCATION,
    UNWRITTEN_NAMES,
    OPEN_END,
    DUPLICATES,
    NEAR_DUPLICATES,
    BALANCE,
)
CHECKS_BY_NAME: dict[CheckName, Check] = {check.name: check for check in CHECKS}
