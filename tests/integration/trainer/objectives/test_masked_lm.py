"""Masked language modeling: which tokens are hidden, the loss of transformers, and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import corpora, tiny
from tests.support.learning import learn
from tests.support.slow import slow
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedModel, RobertaConfig, pipeline

from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, PackedAs
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample
from finetune_trainer.data.records.row import Row
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.packing_support import detect_packing_support
from finetune_trainer.objectives.masked_lm import SPECIAL, WORD_STARTS, MaskedLM
from finetune_trainer.protocol.outcome import ConfigurationError

TEXTS = [row["text"] for row in corpora.texts(20)]
TOKENIZER = tokenizer_training.train_tokenizer(TEXTS, 500, adds_special_tokens=True)


def objective(**options: Any) -> MaskedLM:
    spec = tiny.spec(objective={"type": "MaskedLM", "maskedLM": options}, data={"maxLength": 64})
    return MaskedLM.from_spec(spec, TOKENIZER)


def rows_of(masked: MaskedLM, *texts: str) -> list[Sample]:
    records = [Row({"text": text}, "here", {"text": "text"}) for text in texts]
    return [example for encoded in masked.encoder.encode(records) for example in encoded.examples]


def model(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "pad_token_id": TOKENIZER.pad_token_id,
    }  # fmt: skip
    family = changes.pop("family", BertConfig)
    settings = family(**(sizes | changes))
    made: PreTrainedModel = AutoModelForMaskedLM.from_config(settings).eval()
    return made


def hidden_of(masked: MaskedLM, rows: list[Sample], epoch: int = 0) -> Batch:
    return masked.collator.collate(rows, [sample_generator(1, epoch, index) for index in range(len(rows))], Layout())


def test_pieces_contain_every_token_of_a_text() -> None:
    masked = objective()
    for text in TEXTS:
        rows = rows_of(masked, text)
        inner = [token for row in rows for token in row[TOKENS][1:-1].tolist()]
        assert TOKENIZER.decode(inner) == text
        assert all(len(row[TOKENS]) <= 64 for row in rows)
        assert all(row[TOKENS][0] == row[TOKENS][-1] == TOKENIZER.eos_token_id for row in rows)
        assert all(row[WORD_STARTS][0] == row[WORD_STARTS][-1] == SPECIAL for row in rows)


def test_hides_the_configured_shares() -> None:
    masked = objective(probability=0.4)
    rows = rows_of(masked, *TEXTS)
    batch = hidden_of(masked, rows)
    labels, seen = batch.targets["labels"], batch.inputs["input_ids"]
    hidden = labels != IGNORE_INDEX
    can_be = sum(int((row[WORD_STARTS] != SPECIAL).sum()) for row in rows)
    assert int(hidden.sum()) / can_be == pytest.approx(0.4, abs=0.03)
    assert masked.collator.count_terms(batch) == [int(hidden.sum())]
    by_mask = (seen == TOKENIZER.mask_token_id)[hidden].float().mean().item()
    kept = (seen == labels)[hidden].float().mean().item()
    assert by_mask == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.02)
    original = hidden_of(objective(probability=1e-9), rows).inputs["input_ids"]
    assert torch.equal(torch.where(hidden, labels, seen), original), "nothing but hidden tokens changes"


def test_masks_depend_only_on_seed_epoch_and_row() -> None:
    masked = objective()
    rows = rows_of(masked, *TEXTS)[:8]
    together = hidden_of(masked, rows).targets["labels"]
    for index, row in enumerate(rows):
        alone = masked.collator.collate([row], [sample_generator(1, 0, index)], Layout()).targets["labels"]
        assert torch.equal(together[index, : alone.shape[1]], alone[0])
    assert not torch.equal(hidden_of(masked, rows, epoch=1).targets["labels"], together)


def test_hides_whole_words() -> None:
    masked = objective(wholeWord=True, probability=0.5)
    rows = rows_of(masked, *TEXTS)
    labels = hidden_of(masked, rows).targets["labels"].numpy()
    continued = 0
    for row, label in zip(rows, labels, strict=True):
        marks = row[WORD_STARTS]
        for at in np.flatnonzero(marks == 0):
            continued += 1
            assert (label[at] == IGNORE_INDEX) == (label[at - 1] == IGNORE_INDEX)
    assert continued > 100


def test_computes_the_loss_of_transformers() -> None:
    masked, learner = objective(), model()
    batch = hidden_of(masked, rows_of(masked, *TEXTS))
    expected = learner(**tiny.model_arguments(batch)).loss
    mean = masked.loss.loss_sum(learner, batch)[0] / masked.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    measured = masked.metrics.measure(learner, batch)
    assert measured.losses.item() / masked.collator.count_terms(batch)[0] == pytest.approx(expected.item(), rel=1e-5)
    guessed, hidden = measured.statistics.tolist()
    logits = learner(**batch.inputs).logits
    assert guessed == int((logits.argmax(-1) == batch.targets["labels"]).sum())
    assert hidden == masked.collator.count_terms(batch)[0]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_texts_have_the_loss_of_separate_texts(attention: str) -> None:
    masked, learner = objective(probability=0.3), model()
    learner.set_attn_implementation(attention)
    way = detect_packing_support(learner, packing=True, causal=False)
    assert way is PackedAs.MASK
    rows = rows_of(masked, *TEXTS)[:6]
    packed: Sample = {
        TOKENS: np.concatenate([row[TOKENS] for row in rows]), WORD_STARTS: np.concatenate([row[WORD_STARTS] for row in rows]),
        LENGTHS: np.array([len(row[TOKENS]) for row in rows]),
    }  # fmt: skip
    together = masked.collator.collate([packed], [sample_generator(1, 0, 0)], Layout(way))
    # The same hidden tokens, each text in a row of its own.
    arguments = tiny.model_arguments(together)
    apart = []
    begin = 0
    for row in rows:
        end = begin + len(row[TOKENS])
        apart.append(tiny.batch({name: arguments[name][:, begin:end] for name in ("input_ids", "labels")}))
        begin = end
    alone = sum(masked.loss.loss_sum(learner, part).item() for part in apart)
    assert masked.loss.loss_sum(learner, together).item() == pytest.approx(alone, rel=1e-5)


def test_rejects_packing_where_positions_do_not_restart() -> None:
    learner = model(family=RobertaConfig, pad_token_id=1)
    assert detect_packing_support(learner, packing=False, causal=False) is None
    with pytest.raises(ConfigurationError, match=r"^spec.data.packing: .* set data.packing: false"):
        detect_packing_support(learner, packing=True, causal=False)


def test_rejects_decoder() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model: this bert attends only to the tokens before a masked one"):
        detect_packing_support(model(is_decoder=True), packing=False, causal=False)


def test_rejects_tokenizer_without_mask_token() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer: it has no mask token"):
        MaskedLM.from_spec(tiny.spec(objective={"type": "MaskedLM"}), tiny.tokenizer())


@pytest.mark.parametrize(("steps", "accuracy", "gain"), [(60, 0.03, 0.7), slow(300, 0.09, 1.0)])
def test_training_improves_the_metrics(steps: int, accuracy: float, gain: float, tmp_path: Path) -> None:
    trained = learn(
        tmp_path,
        corpora.texts(),
        objective={"type": "MaskedLM"},
        training={"maxSteps": steps, "optimizer": {"learningRate": 3e-3}},
    )
    assert trained.before["accuracy"] < 0.03
    assert trained.after["accuracy"] > accuracy
    assert trained.after["loss"] < trained.before["loss"] - gain
    guess = pipeline("fill-mask", str(trained.model))
    assert len(guess(f"def f(self):\n    return{guess.tokenizer.mask_token}self")) == 5
