"""Denoising: properties of the noise in the papers, the loss of transformers, and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import corpora, tiny
from tests.support.learning import BART, T5, learn
from tests.support.slow import slow
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, T5Config, pipeline

from finetune_trainer.config.objectives.denoising import DenoisingConfig, SpanCorruptionConfig, TextInfillingConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.huggingface.special_tokens import sentinel_token
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.denoising import SENTENCE_STARTS, Denoising
from finetune_trainer.objectives.inputs import noise
from finetune_trainer.protocol.outcome import ConfigurationError

TEXTS = [row["text"] for row in corpora.texts(20)]
LENGTH = 64
TOKENIZER = tokenizer_training.train_tokenizer(TEXTS, 500, sentinels=DenoisingConfig().sentinel_count(LENGTH))
MASK = 10**6
SENTINELS = MASK + np.arange(1000)
LENGTHS = [2, 3, 4, 7, 20, 50, 113, 400]


def objective(tokenizer: Any = TOKENIZER, overlong: str = "Split", **options: Any) -> Denoising:
    data = {"maxLength": LENGTH, "overlong": overlong}
    return Denoising.from_spec(tiny.spec(objective={"type": "Denoising", "denoising": options}, data=data), tokenizer)


def infilling(**options: Any) -> Denoising:
    return objective(noise="TextInfilling", textInfilling=options)


def rows_of(denoising: Denoising, *texts: str) -> list[Sample]:
    records = [Row({"text": text}, "here", {"text": "text"}) for text in texts]
    return [example for encoded in denoising.encoder.encode(records) for example in encoded.examples]


def batch_of(denoising: Denoising, rows: list[Sample], epoch: int = 0) -> Batch:
    return denoising.collator.collate(rows, [sample_generator(1, epoch, index) for index in range(len(rows))], Layout())


def restored(read: list[int], written: list[int], sentinels: list[int]) -> list[int]:
    """The text, restored from the input and from the target's tokens after each sentinel, which must come in order."""
    spans: dict[int, list[int]] = {}
    for token in written:
        if token in sentinels:
            assert token == sentinels[len(spans)]
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    assert [token for token in read if token in sentinels] == sentinels[: len(spans)]
    assert all(spans.values()), "no span is empty"
    return [part for token in read for part in spans.get(token, [token])]


@pytest.mark.parametrize("options", [{}, {"noise_density": 0.5, "mean_span_length": 1.0}, {"noise_density": 0.9}])
def test_input_and_target_restore_the_text(options: dict[str, float]) -> None:
    chosen, random = SpanCorruptionConfig(**options), np.random.default_rng(0)
    for length in LENGTHS:
        tokens = np.arange(length)
        for _ in range(20):
            read, written = noise.corrupt_spans(tokens, SENTINELS, chosen, random)
            assert restored(read.tolist(), written.tolist(), SENTINELS.tolist()) == tokens.tolist()
            hidden, spans = chosen.counts(length)
            assert (len(read), len(written)) == (length - hidden + spans, hidden + spans)


def test_hides_the_share_and_span_length_of_the_paper() -> None:
    for length in (113, 400, 568):
        hidden, spans = SpanCorruptionConfig().counts(length)
        assert hidden / length == pytest.approx(0.15, abs=0.005)
        assert hidden / spans == pytest.approx(3, abs=0.2)
    # What T5's own pre-training cuts texts to for 512 tokens to read, of which one is the end.
    assert SpanCorruptionConfig().tokens_within(511) == 568
    assert SpanCorruptionConfig().counts(568) == (85, 28)


@pytest.mark.parametrize("density", [0.05, 0.15, 0.5, 0.95])
@pytest.mark.parametrize("mean", [1.0, 3.0, 10.0])
def test_longest_text_fits_and_a_longer_one_does_not(density: float, mean: float) -> None:
    options = SpanCorruptionConfig(noise_density=density, mean_span_length=mean)

    def needed(tokens: int) -> int:
        hidden, spans = options.counts(tokens)
        return spans + max(hidden, tokens - hidden)

    for room in (7, 63, 511):
        most = options.tokens_within(room)
        assert all(needed(tokens) <= room for tokens in range(2, most + 1))
        assert needed(most + 1) > room


def test_hides_inner_positions_equally_often() -> None:
    random, drawn = np.random.default_rng(1), 4000
    hidden = np.zeros(100)
    for _ in range(drawn):
        read, _ = noise.corrupt_spans(np.arange(100), SENTINELS, SpanCorruptionConfig(), random)
        hidden += ~np.isin(np.arange(100), read)
    assert hidden[10:90] / drawn == pytest.approx(np.full(80, 0.15), abs=0.05)
    assert hidden[0] == 0


@pytest.mark.parametrize("mean", [1.0, 3.0])
def test_infilling_hides_poisson_spans(mean: float) -> None:
    options, random = TextInfillingConfig(mask_ratio=0.3, mean_span_length=mean), np.random.default_rng(0)
    masks, zeros = [], 0
    for length in (1, *LENGTHS) * 40:
        tokens = np.arange(length)
        read = noise.infill(tokens, MASK, options, random)
        stays = read[read != MASK]
        assert len(read) <= length
        assert (np.diff(stays) > 0).all(), "what stays is in order"
        assert len(stays) == length - round(0.3 * length)
        if length == 400:
            masks.append(int((read == MASK).sum()))
            # A mask between two tokens that were adjacent replaces no token.
            before, here, after = read[:-2], read[1:-1], read[2:]
            zeros += int(((here == MASK) & (before != MASK) & (after - before == 1)).sum())
    assert 120 / np.mean(masks) == pytest.approx(mean, rel=0.05)
    assert 0 < zeros / sum(masks) < np.exp(-mean)
    assert zeros / sum(masks) > np.exp(-mean) / 3


def test_examples_contain_every_token_without_special_tokens() -> None:
    for denoising, most in ((objective(), 70), (infilling(), LENGTH - 1)):
        for text in TEXTS:
            rows = rows_of(denoising, text)
            kept = [token for row in rows for token in row[TOKENS].tolist()]
            whole = TOKENIZER(text)["input_ids"]
            assert kept in (whole, whole[:-1]), "but one that would be alone"
            assert all(len(row[TOKENS]) <= most for row in rows)
        assert max(len(row[TOKENS]) for row in rows_of(denoising, *TEXTS)) == most


def test_reports_encode_status_of_texts() -> None:
    records = [Row({"text": text}, "here", {"text": "text"}) for text in ("", "a", "ab cd", "a b " * 50)]
    for overlong, status in (
        ("Split", EncodeStatus.SPLIT),
        ("Truncate", EncodeStatus.TRUNCATED),
        ("Drop", EncodeStatus.DROPPED),
    ):
        statuses = [encoded.status for encoded in objective(overlong=overlong).encoder.encode(records)]
        assert statuses == [EncodeStatus.EMPTY, EncodeStatus.EMPTY, EncodeStatus.KEPT, status]


def test_collates_span_corruption() -> None:
    denoising = objective()
    rows = rows_of(denoising, *TEXTS)
    batch = batch_of(denoising, rows)
    sentinels = [TOKENIZER.convert_tokens_to_ids(sentinel_token(number)) for number in range(10)]
    for row, ids, mask, labels in zip(
        rows, batch.inputs["input_ids"], batch.inputs["attention_mask"], batch.targets["labels"], strict=True
    ):
        read, written = ids[mask == 1].tolist(), labels[labels != IGNORE_INDEX].tolist()
        assert max(len(read), len(written)) <= LENGTH
        assert written.pop() == TOKENIZER.eos_token_id
        assert restored(read, written, sentinels) == row[TOKENS].tolist()
    assert denoising.collator.count_terms(batch) == [int((batch.targets["labels"] != IGNORE_INDEX).sum())]


def test_collates_text_infilling() -> None:
    denoising = infilling()
    rows = rows_of(denoising, *TEXTS)
    batch = batch_of(denoising, rows)
    for row, ids, mask, labels in zip(
        rows, batch.inputs["input_ids"], batch.inputs["attention_mask"], batch.targets["labels"], strict=True
    ):
        read, written = ids[mask == 1].tolist(), labels[labels != IGNORE_INDEX].tolist()
        assert written == [*row[TOKENS], TOKENIZER.eos_token_id]
        assert TOKENIZER.mask_token_id in read or len(row[TOKENS]) < 2
        assert sum(token != TOKENIZER.mask_token_id for token in read) == len(row[TOKENS]) - round(0.3 * len(row[TOKENS]))


def test_shuffles_whole_sentences() -> None:
    denoising = infilling(shuffleSentences=True, maskRatio=1e-9)
    text = "One is here.  Two stays! Is three? Then\nfour goes 3.5 far\u3002five"
    sentences = ["One is here.  ", "Two stays! ", "Is three? ", "Then\n", "four goes 3.5 far\u3002", "five"]
    [row] = rows_of(denoising, text)
    assert row[SENTENCE_STARTS].sum() == 5
    orders = set()
    for epoch in range(50):
        batch = batch_of(denoising, [row], epoch)
        read = TOKENIZER.decode(batch.inputs["input_ids"][0][batch.inputs["attention_mask"][0] == 1])
        orders.add(read)
        assert sorted(read) == sorted(text)
        # A blank before a sentence is a part of its first token.
        assert sum(sentence.strip() in read for sentence in sentences) == 6
        assert (
            TOKENIZER.decode(batch.targets["labels"][0][batch.targets["labels"][0] != IGNORE_INDEX])
            == text + tokenizer_training.END
        )
    assert len(orders) > 40


@pytest.mark.parametrize("make", [objective, infilling])
def test_noise_depends_only_on_seed_epoch_and_row(make: Any) -> None:
    denoising = make()
    rows = rows_of(denoising, *TEXTS)[:8]
    together = batch_of(denoising, rows)
    for index, row in enumerate(rows):
        alone = denoising.collator.collate([row], [sample_generator(1, 0, index)], Layout())
        for name, tensor in tiny.model_arguments(alone).items():
            assert torch.equal(tiny.model_arguments(together)[name][index, : tensor.shape[1]], tensor[0])
    assert not torch.equal(batch_of(denoising, rows, epoch=1).inputs["input_ids"], together.inputs["input_ids"])


@pytest.mark.parametrize("make", [objective, infilling])
def test_computes_the_loss_of_transformers(make: Any) -> None:
    denoising = make()
    torch.manual_seed(0)
    start = {"vocab_size": 500, "pad_token_id": 1, "decoder_start_token_id": 1}
    family, sizes = (T5Config, T5) if make is objective else (BartConfig, BART)
    learner = AutoModelForSeq2SeqLM.from_config(family.from_dict(sizes | start)).eval()
    batch = batch_of(denoising, rows_of(denoising, *TEXTS))
    mean = denoising.loss.loss_sum(learner, batch)[0] / denoising.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(learner(**tiny.model_arguments(batch)).loss.item(), rel=1e-5)
    nothing = denoising.collator.collate([], [], Layout())
    assert (denoising.collator.count_terms(nothing), denoising.loss.loss_sum(learner, nothing).item()) == ([0], 0)


def test_trained_tokenizer_has_all_sentinels() -> None:
    names = [sentinel_token(number) for number in range(DenoisingConfig().sentinel_count(LENGTH))]
    assert len(names) == 4
    assert TOKENIZER.extra_special_tokens == names
    assert TOKENIZER.decode(TOKENIZER("a<extra_id_0>b")["input_ids"], skip_special_tokens=True) == "ab"
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer.train.vocabSize: 300 entries leave no room for words"):
        tokenizer_training.train_tokenizer(TEXTS, 300, sentinels=57)


def test_rejects_unsuitable_tokenizers() -> None:
    few = tokenizer_training.train_tokenizer(TEXTS, 500, sentinels=1)
    message = r"^spec.model.tokenizer: SpanCorruption needs 3 sentinel tokens .*\(<extra_id_0> to <extra_id_2>\).* has 1: "
    with pytest.raises(ConfigurationError, match=message):
        objective(few)
    few.mask_token = None
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer: it has no mask token"):
        objective(few, noise="TextInfilling")


@pytest.mark.parametrize(("steps", "accuracy", "gain"), [(60, 0.15, 1.5), slow(250, 0.2, 2)])
def test_training_with_span_corruption_improves_the_metrics(steps: int, accuracy: float, gain: float, tmp_path: Path) -> None:
    trained = learn(
        tmp_path, corpora.texts(), model={"config": T5}, objective={"type": "Denoising"}, data={"maxLength": 64},
        training={"maxSteps": steps, "optimizer": {"learningRate": 5e-3}},
    )  # fmt: skip
    assert trained.before["tokenAccuracy"] < 0.02
    assert trained.after["tokenAccuracy"] > accuracy
    assert trained.after["loss"] < trained.before["loss"] - gain
    tokenizer, writer = AutoTokenizer.from_pretrained(trained.model), AutoModelForSeq2SeqLM.from_pretrained(trained.model)
    read = tokenizer("def f(<extra_id_0>):\n    return<extra_id_1>", return_tensors="pt")
    written = tokenizer.decode(writer.generate(**read, max_new_tokens=8)[0])
    assert written.startswith("<|padding|><extra_id_0>")


@pytest.mark.parametrize(("steps", "accuracy", "gain"), [(50, 0.05, 0.8), slow(250, 0.12, 2)])
def test_training_with_text_infilling_improves_the_metrics(steps: int, accuracy: float, gain: float, tmp_path: Path) -> None:
    trained = learn(
        tmp_path, corpora.texts(), model={"config": BART}, data={"maxLength": 32},
        objective={"type": "Denoising", "denoising": {"noise": "TextInfilling"}},
        training={"maxSteps": steps, "optimizer": {"learningRate": 3e-3}},
    )  # fmt: skip
    assert trained.before["tokenAccuracy"] < 0.02
    assert trained.after["tokenAccuracy"] > accuracy
    assert trained.after["loss"] < trained.before["loss"] - gain
    guess = pipeline("fill-mask", str(trained.model))
    assert len(guess(f"def f(self):\n    return{guess.tokenizer.mask_token}")) == 5
