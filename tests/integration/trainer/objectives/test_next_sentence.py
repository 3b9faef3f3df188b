"""BERT's pretraining: the pairs of a document, the loss of transformers, both metrics, and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import corpora, tiny
from tests.support.learning import BERT, learn
from transformers import (
    AutoModelForPreTraining,
    BertConfig,
    BertForNextSentencePrediction,
    GPT2Config,
    PreTrainedModel,
    pipeline,
)

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset, Sample
from finetune_trainer.data.preprocessing.examples import EncodeStatus, ExampleWriter, write_examples
from finetune_trainer.data.records.row import Row
from finetune_trainer.data.sources.stream import SPLITS, TRAIN, SplitRow
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.masked_lm import SPECIAL, WORD_STARTS
from finetune_trainer.objectives.next_sentence import NextSentence, split_sentences
from finetune_trainer.protocol.outcome import ConfigurationError

ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
TEXTS = [row["text"] for row in corpora.texts(20)]
TOKENIZER = tokenizer_training.train_tokenizer(TEXTS, 500, adds_special_tokens=True)
END = TOKENIZER.eos_token_id


def objective(max_length: int = 64, overlong: str | None = None, **options: Any) -> NextSentence:
    spec: TrainSpec = tiny.spec(
        objective={"type": "NextSentence", "nextSentence": options}, data={"maxLength": max_length, "overlong": overlong}
    )
    return NextSentence.from_spec(spec, TOKENIZER)


def records(*texts: str) -> list[Row]:
    return [Row({"text": text}, "here", {"text": "text"}) for text in texts]


def rows_of(pretraining: NextSentence, *texts: str) -> list[Sample]:
    encoded = pretraining.encoder.encode(records(*texts))
    return [{name: np.asarray(value) for name, value in example.items()} for one in encoded for example in one.examples]


def batch_of(pretraining: NextSentence, rows: list[Sample]) -> Batch:
    return pretraining.collator.collate(rows, [sample_generator(1, 0, index) for index in range(len(rows))], Layout())


def model(family: Any = BertConfig, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "pad_token_id": TOKENIZER.pad_token_id, "initializer_range": 0.5,
    }  # fmt: skip
    made: PreTrainedModel = AutoModelForPreTraining.from_config(family(**(sizes | changes))).eval()
    return made


def pieces(row: Sample) -> tuple[str, str]:
    """Both texts of a row."""
    inner = row[WORD_STARTS] != SPECIAL
    first, second = (row[TOKENS][inner & (row["token_type_ids"] == segment)] for segment in (0, 1))
    return TOKENIZER.decode(first), TOKENIZER.decode(second)


def test_pairs_have_the_special_tokens_of_the_tokenizer() -> None:
    rows = rows_of(objective(), *TEXTS)
    compared = 0
    for row in rows:
        theirs = TOKENIZER(*pieces(row), return_token_type_ids=True)
        assert len(row[TOKENS]) <= 64
        if len(row[TOKENS]) == len(theirs["input_ids"]):  # unless a cut came between two letters of a token
            assert row[TOKENS].tolist() == theirs["input_ids"]
            assert row["token_type_ids"].tolist() == theirs["token_type_ids"]
            compared += 1
        ends = np.flatnonzero(row[TOKENS] == END)
        assert ends.tolist() == [0, int((row["token_type_ids"] == 0).sum()) - 1, len(row[TOKENS]) - 1]
    assert compared > 100


def test_second_piece_follows_or_is_from_another_text() -> None:
    rows = rows_of(objective(), *TEXTS)
    follows = 0
    for row in rows:
        first, second = pieces(row)
        is_one = any(first + second in text for text in TEXTS)
        if row["foreign"]:
            assert any(first in text for text in TEXTS)
            assert any(second in text for text in TEXTS)
        else:
            assert is_one
        follows += is_one
    assert follows / len(rows) == pytest.approx(0.5, abs=0.06)
    assert 1 - np.mean([row["foreign"] for row in rows]) == pytest.approx(0.5, abs=0.06)


def test_applies_the_configured_share() -> None:
    for share in (0.0, 1.0):
        assert {int(row["foreign"]) for row in rows_of(objective(nextSentenceShare=share), *TEXTS)} == {int(1 - share)}
    assert not any(row["foreign"] for row in rows_of(objective(nextSentenceShare=0.0), TEXTS[0])), "there is no other"


def test_encoding_is_deterministic() -> None:
    once, again = (rows_of(objective(), *TEXTS) for _ in range(2))
    assert all(np.array_equal(one[TOKENS], other[TOKENS]) for one, other in zip(once, again, strict=True))


def test_pairs_contain_every_sentence_of_a_text() -> None:
    for text in TEXTS:
        whole = "".join("".join(pieces(row)) for row in rows_of(objective(nextSentenceShare=1.0), text))
        left = len(text) - len(whole)
        assert text.startswith(whole)
        assert left == 0 or len(TOKENIZER.tokenize(text[-left:])) <= 61 // 2, "but one that is left alone"


@pytest.mark.parametrize(
    ("text", "count"),
    [("One. Two! Three?", 3), ("a line\nanother\n\nthird", 3), ("今日。明日。", 2), ("version 1.5 is out", 1), ("\n\n", 0)],
)
def test_splits_sentences(text: str, count: int) -> None:
    pretraining = objective()
    statuses = [one.status for one in pretraining.encoder.encode(records(text))]
    assert statuses == [EncodeStatus.KEPT if count > 1 else EncodeStatus.EMPTY]
    assert len(split_sentences(text)) == count
    assert "".join(split_sentences(text)) == text.strip("\n")


def test_encodes_long_texts() -> None:
    text = "some words here.\n" * 30
    for overlong, status, count in (
        (None, EncodeStatus.SPLIT, 3),
        ("Truncate", EncodeStatus.TRUNCATED, 1),
        ("Drop", EncodeStatus.DROPPED, 0),
    ):
        encoded, short = objective(overlong=overlong).encoder.encode(records(text, "short.\ntext."))
        assert (encoded.status, short.status) == (status, EncodeStatus.KEPT)
        assert len(encoded.examples) == count or (overlong is None and len(encoded.examples) > count)


def test_splits_sentences_longer_than_a_row() -> None:
    rows = rows_of(objective(max_length=16), "word " * 100, TEXTS[0])
    assert all(len(row[TOKENS]) <= 16 for row in rows)
    assert all(row[WORD_STARTS][1] == 1 for row in rows)


def test_does_not_mix_training_and_evaluation_texts(tmp_path: Path) -> None:
    pretraining = objective()
    writers = {side: ExampleWriter(tmp_path / side, pretraining.encoder.fields) for side in SPLITS}
    placed = [SplitRow(record, SPLITS[index % len(SPLITS)], 0, TRAIN) for index, record in enumerate(records(*TEXTS))]
    write_examples(placed, pretraining.encoder, writers, lambda _: 0, lambda _: None)
    for side, writer in writers.items():
        writer.close()
        own = [one.row.values["text"] for one in placed if one.split == side]
        rows = ArrowDataset(writer.path)
        assert writer.counts.rows == len(own)
        assert any(row["foreign"] for row in rows)
        assert all(any(piece in text for text in own) for row in rows for piece in pieces(row))


def test_computes_the_loss_of_transformers() -> None:
    pretraining, learner = objective(), model()
    batch = batch_of(pretraining, rows_of(pretraining, *TEXTS)[:32])
    theirs = batch.inputs | {"labels": batch.targets["labels"]}
    expected = learner(**theirs, next_sentence_label=batch.targets["next_sentence_labels"])
    counts = torch.tensor(pretraining.collator.count_terms(batch))
    assert counts[1] == 32
    means = pretraining.loss.loss_sum(learner, batch) / counts
    assert means.sum().item() == pytest.approx(expected.loss.item(), rel=1e-5)
    with torch.no_grad():
        measured = pretraining.metrics.measure(learner, batch)
    metrics = pretraining.metrics.compute((measured.losses / counts).tolist(), measured.statistics.numpy())
    assert metrics["loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    assert metrics["masked.loss"] + metrics["nextSentence.loss"] == metrics["loss"]
    right = (expected.seq_relationship_logits.argmax(1) == batch.targets["next_sentence_labels"]).float().mean()
    assert metrics["nextSentence.accuracy"] == pytest.approx(right.item())
    hidden = batch.targets["labels"] != IGNORE_INDEX
    assert metrics["masked.accuracy"] == pytest.approx(
        (expected.prediction_logits.argmax(-1) == batch.targets["labels"])[hidden].float().mean().item()
    )


def test_rank_without_rows_has_zero_loss() -> None:
    pretraining = objective()
    batch = batch_of(pretraining, [])
    assert pretraining.collator.count_terms(batch) == [0, 0]
    total = pretraining.loss.loss_sum(model(), batch)
    total.sum().backward()
    assert total.tolist() == [0, 0]


def test_rejects_family_without_next_sentence_head() -> None:
    objective().model_setup.prepare(model(), ALONE)
    with pytest.raises(ConfigurationError, match=r"^spec.model: this gpt2 gives no seq_relationship_logits for a text: use"):
        objective().model_setup.prepare(model(GPT2Config, n_embd=32, n_layer=1, n_head=2), ALONE)


def test_training_improves_the_metrics(tmp_path: Path) -> None:
    # With the usual initial weights so narrow a model takes long to see anything in its first token.
    trained = learn(
        tmp_path, corpora.numbered(), objective={"type": "NextSentence"}, data={"maxLength": 64},
        model={"config": BERT | {"initializer_range": 0.2}}, training={"maxSteps": 100, "batchSize": 32, "microBatchSize": 32},
    )  # fmt: skip
    assert trained.before["masked.accuracy"] < 0.03
    assert trained.after["masked.accuracy"] > 0.06
    assert trained.before["nextSentence.accuracy"] < 0.55
    assert trained.after["nextSentence.accuracy"] > 0.65
    guess = pipeline("fill-mask", str(trained.model))
    assert len(guess(f"first def{guess.tokenizer.mask_token}")) == 5
    assert BertForNextSentencePrediction.from_pretrained(trained.model).config.hidden_size == BERT["hidden_size"]
