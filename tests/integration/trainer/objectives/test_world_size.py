"""Losses of all steps and metrics of the evaluation are the same at any number of ranks, for each objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support import corpora
from tests.support.learning import BART, LLAMA, T5, VIT, learn
from tests.support.slow import slow_except

from finetune_trainer.training.engine import merge

TASKS = [{"name": "package", "type": "SequenceClassification"}, {"name": "words", "type": "MaskedLM"}]
WRITING = {"maxTargetLength": 16}
SHOWN = {"fewShot": {"examples": 2}}
# With the same micro-batches three ranks accumulate 2 of them and one rank 6, as in an elastic run that loses nodes. The other
# documents have micro-batches of a third of the size on three ranks, and as many of them.
ELASTIC = {"microBatchSize": 2}
IMAGES = {"augmentation": {"randomCrop": {}, "trivialAugment": True}}
OBJECTIVES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "Denoising": (corpora.texts(30), {"model": {"config": T5}}),
    "Denoising, infilling": (
        corpora.texts(30),
        {
            "model": {"config": BART},
            "objective": {"denoising": {"noise": "TextInfilling", "textInfilling": {"shuffleSentences": True}}},
        },
    ),
    "ImageClassification": (
        corpora.digits(120),
        {"model": {"config": VIT, "tokenizer": None}, "objective": {"imageClassification": IMAGES}},
    ),
    "ImageContrastive": (
        corpora.images(120),
        {"model": {"config": VIT, "tokenizer": None}, "objective": {"imageContrastive": IMAGES}},
    ),
    "InstructionTuning": (corpora.conversations(30), {"model": {"config": LLAMA}, "evaluation": SHOWN}),
    "MaskedLM": (corpora.texts(30), {}),
    "MaskedLM, unpacked": (corpora.texts(30), {"data": {"packing": False}, "training": ELASTIC}),
    "MultiTask": (corpora.by_package(30), {"objective": {"tasks": TASKS}, "training": ELASTIC}),
    "QuestionAnswering": (corpora.asked(30), {"data": {"maxLength": 64}}),
    "NextSentence": (corpora.texts(30), {}),
    "MaskedLM, smoothed": (corpora.texts(30), {"training": {"labelSmoothing": 0.1}}),
    "PreferenceTuning": (corpora.preferences(30), {"model": {"config": LLAMA}}),
    "Seq2Seq": (
        corpora.spelt_out()[:100],
        {"model": {"config": T5}, "objective": {"seq2Seq": WRITING}, "evaluation": SHOWN},
    ),
    "Seq2Seq, weights in parts": (  # which must find together again after each of the texts that an evaluation writes
        corpora.spelt_out()[:50],
        {"model": {"config": T5}, "objective": {"seq2Seq": {"maxTargetLength": 8}}, "deepspeed": {"zeroStage": 3}},
    ),
    "SequenceClassification": (corpora.by_package(30), {}),
    "TextContrastive": (corpora.pairs(30), {"training": ELASTIC}),
    "TokenClassification": (corpora.tagged(30), {}),
    "SequenceClassification, balanced": (
        corpora.by_package(30)[:70],
        {
            "data": {"resample": "Balanced"},
            "objective": {"sequenceClassification": {"classWeights": {"asyncio": 0.1, "email": 3.0}}},
        },
    ),
}
# One of each kind: packed sequences with one loss; padded rows with weights; rows that are compared with those of other ranks;
# a reference model; and tasks of which a rank may have no row. The third and the last accumulate differently on three ranks.
QUICK = ("InstructionTuning", "SequenceClassification, balanced", "TextContrastive", "PreferenceTuning", "MultiTask")


@pytest.mark.parametrize("name", slow_except(QUICK, OBJECTIVES))
def test_any_number_of_ranks_gives_the_same_losses_and_metrics(name: str, tmp_path: Path) -> None:
    rows, changes = OBJECTIVES[name]
    chosen = {
        "objective": {"type": name.partition(",")[0]}, "training": {"maxSteps": 5, "batchSize": 12, "logEverySteps": 1},
    }  # fmt: skip
    alone, together = (
        learn(
            tmp_path / str(size), rows, size,
            **merge(merge(chosen, {"training": {"microBatchSize": 6 // size}}), changes),
        )
        for size in (1, 3)
    )  # fmt: skip
    assert len(alone.losses) == len(together.losses) == 5
    assert together.losses == pytest.approx(alone.losses, rel=1e-4)
    assert together.before == pytest.approx(alone.before, rel=1e-4)
    assert together.after == pytest.approx(alone.after, rel=1e-3, abs=1e-3)
