"""Checks of what encoding did to the rows: lost ends, and rows from which nothing, or not everything, can be learned."""

from __future__ import annotations

from finetune_trainer.data.checks.base import Check, always_warn

TRUNCATION = Check(
    name="truncation",
    description="longer than maxLength",
    advice="raise data.maxLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
QUESTION_TRUNCATION = Check(
    name="longQuestions",
    description="with questions longer than half of maxLength",
    advice="raise data.maxLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
TARGET_TRUNCATION = Check(
    name="longTargets",
    description="with targets longer than maxTargetLength",
    advice="raise objective.seq2Seq.maxTargetLength, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
LOST_ANSWERS = Check(
    name="lostAnswers",
    description="with an answer that is completely in no window, so that the model learns that there is none",
    advice="raise data.maxLength or stride, or set data.checks.truncation: Warn",
    policy=lambda checks: checks.truncation,
)
UNTOKENIZED_WORDS = Check(
    name="untokenizedWords",
    description="with words for which the tokenizer has no tokens, so that their tags are not learned",
    advice="remove these words and their tags",
    policy=always_warn,
)
UNLABELED = Check(
    name="unlabeled",
    description="without a label",
    advice="label or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
INCONSISTENT_TAGS = Check(
    name="tags",
    description="with tags that break the rules of their scheme",
    advice="correct them",
    policy=always_warn,
)
UNLEARNABLE = Check(
    name="unlearnable",
    description="without anything to learn",
    advice="fill or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
UNANSWERED = Check(
    name="unanswered",
    description="without an answer, or with an empty one",
    advice="answer or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
IDENTICAL_ANSWERS = Check(
    name="identicalAnswers",
    description="with two equal answers, neither of which can be preferred",
    advice="correct or remove them, or set data.checks.unlearnable: Warn",
    policy=lambda checks: checks.unlearnable,
)
OPEN_END = Check(
    name="openEnd",
    description="with a last message that is not answered, from which nothing is learned",
    advice="answer it or remove it",
    policy=always_warn,
)
UNWRITTEN_NAMES = Check(
    name="unwrittenNames",
    description="with names of speakers, which the chat template does not write",
    advice="set a chatTemplate that writes them",
    policy=always_warn,
)
