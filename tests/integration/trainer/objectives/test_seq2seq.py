"""Text to text: the loss of transformers for several families, metrics of sacrebleu and rouge_score, and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from tests.support import corpora, ranks, tiny
from tests.support.learning import BART, T5, learn
from tests.support.methods import apply_method
from tests.support.slow import slow
from tests.support.training import joined
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, M2M100Config, MBartConfig, PreTrainedModel, T5Config

from finetune_trainer import config
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import Sample
from finetune_trainer.data.preprocessing.examples import EncodeIssue, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.loading import load_model, validate_positions
from finetune_trainer.objectives.metrics.text_generation import BLEU, ROUGE
from finetune_trainer.objectives.model_setups.encoder_decoder import decoder_input_ids
from finetune_trainer.objectives.seq2seq import Seq2Seq
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training import engine
from finetune_trainer.training.evaluation import evaluate

ROWS = corpora.spelt_out()[:40]
SHORT = {"maxTargetLength": 8}
TOKENIZER = tokenizer_training.train_tokenizer([text for row in ROWS for text in row.values()], 400)


def spec(**changes: Any) -> config.TrainSpec:
    options = {"maxTargetLength": 16, **changes.pop("options", {})}
    return tiny.spec(**{"objective": {"type": "Seq2Seq", "seq2Seq": options}, "data": {"maxLength": 48}} | changes)


def objective(tokenizer: Any = TOKENIZER, **changes: Any) -> Seq2Seq:
    return Seq2Seq.from_spec(spec(**changes), tokenizer)


def records(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}", {key: key for key in row}) for number, row in enumerate(rows, start=1)]


def examples(seq2seq: Seq2Seq, rows: list[dict[str, Any]]) -> list[Sample]:
    return [example for encoded in seq2seq.encoder.encode(records(rows)) for example in encoded.examples]


def batch_of(seq2seq: Seq2Seq, rows: list[dict[str, Any]]) -> Batch:
    return seq2seq.collator.collate(examples(seq2seq, rows), [], Layout())


def model(seq2seq: Seq2Seq, settings: dict[str, Any], folder: Path) -> PreTrainedModel:
    """From random weights so large that its texts differ, in float32 and without dropout."""
    wanted = config.ModelConfig.model_validate({"initialization": "Scratch", "config": settings, "tokenizer": {"train": {}}})
    made = load_model(wanted, seq2seq, dtype=torch.float32, cache=folder, credentials=Credentials(), seed=3).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return made


def test_encoded_texts_and_targets_decode_to_the_originals() -> None:
    seq2seq = objective(options={"prefix": "spell: "})
    for row, example in zip(ROWS, examples(seq2seq, ROWS), strict=True):
        assert TOKENIZER.decode(example["input_ids"]) == "spell: " + row["text"]
        assert TOKENIZER.decode(example["target"]) == row["target"] + tokenizer_training.END


def test_encodes_long_and_empty_rows() -> None:
    rows = [
        {"text": "a b " * 50, "target": "c"}, {"text": "a", "target": "c d " * 50}, {"text": "a", "target": "c"},
        {"text": " ", "target": "c"}, {"text": "a", "target": ""},
    ]  # fmt: skip
    whole = [EncodeStatus.KEPT, EncodeStatus.EMPTY, EncodeStatus.EMPTY]
    for overlong, statuses in (
        ("Truncate", [EncodeStatus.TRUNCATED] * 2 + whole),
        ("Drop", [EncodeStatus.DROPPED] * 2 + whole),
    ):
        encoded = list(objective(data={"maxLength": 48, "overlong": overlong}).encoder.encode(records(rows)))
        assert [one.status for one in encoded] == statuses
        kept = [example for one in encoded for example in one.examples]
        assert max(len(example["input_ids"]) for example in kept) == (48 if overlong == "Truncate" else 1)
        assert max(len(example["target"]) for example in kept) == (16 if overlong == "Truncate" else 2)
        ends = [list(example["target"]).count(TOKENIZER.eos_token_id) for example in kept]
        assert ends == ([1, 0, 1] if overlong == "Truncate" else [1]), "the model does not learn to stop where a target is cut"
        assert [one.issues for one in encoded[:3]] == [[EncodeIssue.LONG_TEXT], [EncodeIssue.LONG_TARGET], []]


@pytest.mark.parametrize(
    ("frame", "begin"),
    [("$A <|endoftext|>", []), ("<|endoftext|> $A <|endoftext|>", []), ("<|mask|> $A <|endoftext|>", [2])],
)
def test_encodes_targets_with_special_tokens(frame: str, begin: list[int]) -> None:
    tokenizer = tokenizer_training.train_tokenizer(["x"], 300)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (tokenizer_training.END, tokenizer_training.MASK)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=frame, special_tokens=special)
    seq2seq = objective(tokenizer)
    short, long = examples(seq2seq, [{"text": "x", "target": "yz"}, {"text": "x", "target": "yz" * 50}])
    bare = tokenizer("yz", add_special_tokens=False)["input_ids"]
    assert list(short["target"]) == [*begin, *bare, tokenizer.eos_token_id]
    assert list(long["target"]) == [*begin, *tokenizer("yz" * 50, add_special_tokens=False)["input_ids"]][:16]


@pytest.mark.parametrize("settings", [T5, BART], ids=["t5", "bart"])
def test_computes_the_loss_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    seq2seq = objective(options={"metrics": []})
    learner = model(seq2seq, settings, tmp_path)
    batch = batch_of(seq2seq, ROWS)
    lengths = [len(example["target"]) for example in examples(seq2seq, ROWS)]
    assert (batch.targets["labels"] != IGNORE_INDEX).sum(1).tolist() == lengths
    assert seq2seq.collator.count_terms(batch) == [sum(lengths)]
    expected = learner(**tiny.model_arguments(batch))
    mean = seq2seq.loss.loss_sum(learner, batch)[0] / seq2seq.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    smooth = objective(training={"labelSmoothing": 0.1}).loss.loss_sum(learner, batch)[0]
    each = torch.nn.functional.cross_entropy(
        expected.logits.flatten(0, 1), batch.targets["labels"].flatten(), label_smoothing=0.1, reduction="sum"
    )
    assert smooth.item() == pytest.approx(each.item(), rel=1e-5)
    measured = seq2seq.metrics.measure(learner, batch)
    assert measured.losses.item() / sum(lengths) == pytest.approx(expected.loss.item(), rel=1e-5)
    assert measured.statistics.tolist() == [int((expected.logits.argmax(-1) == batch.targets["labels"]).sum()), sum(lengths)]
    found = seq2seq.metrics.compute([mean.item()], measured.statistics.numpy())
    assert found["perplexity"] == pytest.approx(float(expected.loss.detach().exp()), rel=1e-4)
    assert found.keys() == {"loss", "perplexity", "tokenAccuracy"}


@pytest.mark.parametrize("family", [M2M100Config, MBartConfig])
def test_computes_the_loss_of_other_families(family: Any) -> None:
    settings = family(
        vocab_size=400, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, pad_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    learner = AutoModelForSeq2SeqLM.from_config(settings).eval()
    seq2seq = objective()
    batch = batch_of(seq2seq, ROWS)
    assert (decoder_input_ids(learner, batch.targets["labels"]) >= 0).all()
    mean = seq2seq.loss.loss_sum(learner, batch)[0] / seq2seq.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(learner(**tiny.model_arguments(batch)).loss.item(), rel=1e-5)


def test_batch_without_rows_has_zero_loss(tmp_path: Path) -> None:
    seq2seq = objective()
    learner = model(seq2seq, T5, tmp_path)
    batch = seq2seq.collator.collate([], [], Layout())
    assert seq2seq.collator.count_terms(batch) == [0]
    total = seq2seq.loss.loss_sum(learner, batch)
    total.sum().backward()
    assert total.item() == 0
    measured = seq2seq.metrics.measure(learner, batch)
    assert measured.statistics.tolist() == [0.0] * 16
    assert seq2seq.metrics.compute([0.0], measured.statistics.numpy())["bleu"] == 0


@pytest.mark.parametrize("settings", [T5, BART], ids=["t5", "bart"])
def test_model_from_scratch_has_start_and_end_tokens(settings: dict[str, Any], tmp_path: Path) -> None:
    made = model(objective(), settings, tmp_path)
    assert made.generation_config.decoder_start_token_id == TOKENIZER.pad_token_id
    assert made.generation_config.eos_token_id == TOKENIZER.eos_token_id
    assert made.generation_config.forced_eos_token_id in (None, TOKENIZER.eos_token_id)
    other = model(objective(), settings | {"decoder_start_token_id": 2}, tmp_path)
    assert other.generation_config.decoder_start_token_id == 2


def test_text_metrics_equal_the_libraries_for_any_batches() -> None:
    wanted = [row["target"] + " and, what else?" for row in ROWS]
    written = [target[: 5 + 7 * index % len(target)] for index, target in enumerate(wanted)]
    written[3] = ""
    parts = [slice(0, 1), slice(1, 17), slice(17, 17), slice(17, None)]
    bleu, rouge = BLEU(), ROUGE()
    sums = sum(np.array(bleu.sums(written[part], wanted[part])) for part in parts)
    expected = sacrebleu.corpus_bleu(written, [wanted]).score
    assert bleu.scores(np.asarray(sums)) == {"bleu": pytest.approx(expected, rel=1e-12)}
    assert 20 < expected < 80
    sums = sum(np.array(rouge.sums(written[part], wanted[part])) for part in parts)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = [scorer.score(target, text) for target, text in zip(wanted, written, strict=True)]
    means = {name: np.mean([score[name].fmeasure for score in scores]) for name in scores[0]}
    assert rouge.scores(np.asarray(sums)) == pytest.approx(means, rel=1e-12)
    assert 0.2 < means["rouge2"] < means["rouge1"] < 0.9


def writer(seq2seq: Seq2Seq, folder: Path) -> PreTrainedModel:
    """A small model that ends some of its texts early, as large a weight as its end-of-text token has."""
    made = model(seq2seq, T5 | {"num_layers": 1}, folder)
    with torch.no_grad():
        made.get_input_embeddings().weight[TOKENIZER.eos_token_id] *= 4
    return made


def measured(place: ranks.Place, stage: int, beams: int, folder: Path) -> dict[str, float] | None:
    """The metrics of 13 rows: in the second of two batches one rank has three, one has one and one has none."""
    given = spec(options=SHORT | {"beams": beams}, training={"batchSize": 6}, deepspeed={"zeroStage": stage})
    seq2seq = Seq2Seq.from_spec(given, TOKENIZER)
    with joined(place) as here:
        learner = writer(seq2seq, folder)
        trained = engine.build_engine(learner, given.training, given.deepspeed, None, here, "Float32")
        groups = []
        for begin in range(0, 13, 3 * here.size):
            mine = ROWS[:13][begin + here.rank * 3 : begin + here.rank * 3 + 3]
            batch = seq2seq.collator.collate(examples(seq2seq, mine) if mine else [], [], Layout())
            groups.append([tiny.micro(batch, seq2seq)])
        learner.generation_config.max_length = 3  # a default for users of the model
        result = evaluate(trained, seq2seq, groups, here, lambda: True)
        assert learner.generation_config.max_length == 3
        return result and result.metrics


@pytest.mark.parametrize(("stage", "beams"), [slow(1, 1), slow(3, 1), (3, 3)])
def test_evaluates_generated_texts_of_all_ranks(stage: int, beams: int, tmp_path: Path) -> None:
    seq2seq = objective(options=SHORT | {"beams": beams})
    learner = writer(seq2seq, tmp_path)
    batch = batch_of(seq2seq, ROWS[:13])
    tokens = learner.generate(**batch.inputs, num_beams=beams, do_sample=False, max_new_tokens=8)
    written = TOKENIZER.batch_decode(tokens, skip_special_tokens=True)
    wanted = [row["target"] for row in ROWS[:13]]
    scorer = RougeScorer(["rouge1"])
    rouge = np.mean([scorer.score(*pair)["rouge1"].fmeasure for pair in zip(wanted, written, strict=True)])
    finished = (tokens[:, 1:] == TOKENIZER.eos_token_id).any(1)
    assert finished[12], "the row that is alone on its rank"
    assert not finished[9:12].all(), "those of another rank at the same time"
    found = ranks.run(measured, 3, stage, beams, tmp_path)
    assert found[0] == found[1] == found[2]
    assert found[0]["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [wanted]).score, rel=1e-9)
    assert found[0]["rouge1"] == pytest.approx(rouge, rel=1e-9)
    assert found[0]["loss"] == pytest.approx(learner(**tiny.model_arguments(batch)).loss.item(), rel=1e-5)


def test_compares_generated_texts_with_whole_targets(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "target": f"{row['target']}  and what\telse ☕?"} for row in ROWS[:8]]
    seq2seq = objective(options={"maxTargetLength": 4})
    learner = writer(seq2seq, tmp_path)
    batch = batch_of(seq2seq, rows)
    assert batch.targets["labels"].shape[1] < 10
    written = TOKENIZER.batch_decode(
        learner.generate(**batch.inputs, do_sample=False, max_new_tokens=4), skip_special_tokens=True
    )
    sums = seq2seq.metrics.measure(learner, batch).statistics.numpy()
    whole = [row["target"] for row in rows]
    assert sums[2:12].tolist() == BLEU().sums(written, whole)
    assert sums[12:].tolist() == pytest.approx(ROUGE().sums(written, whole))


def test_rejects_model_without_decoder_start_token() -> None:
    settings = T5Config(vocab_size=400, d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16)
    learner = AutoModelForSeq2SeqLM.from_config(settings)
    with pytest.raises(ConfigurationError, match=r"^spec.model.config.decoder_start_token_id: .* set it, often to"):
        objective().model_setup.prepare(learner, ProcessGroup(0, 1, 0, 1, torch.device("cpu")))


def test_rejects_targets_longer_than_the_positions(tmp_path: Path) -> None:
    seq2seq = objective(options={"maxTargetLength": 65})
    made = model(seq2seq, BART | {"max_position_embeddings": 64}, tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"^spec.objective.seq2Seq.maxTargetLength: 65 is more than the 64 positions of this bart: "
    ):
        validate_positions(made, seq2seq.encoder.max_lengths)


def test_trains_adapters(tmp_path: Path) -> None:
    given = spec(method={"type": "LoRA"}, model={"initialization": "Pretrained", "source": "hf://a/b", "tokenizer": None})
    seq2seq = Seq2Seq.from_spec(given, TOKENIZER)
    learner = model(seq2seq, BART, tmp_path)
    batch = batch_of(seq2seq, ROWS[:4])
    before = seq2seq.metrics.measure(learner, batch)
    adapted = apply_method(learner, given, seq2seq).eval()
    assert type(adapted).__name__ == "PeftModelForSeq2SeqLM"
    after = seq2seq.metrics.measure(adapted, batch)
    assert after.losses.item() == pytest.approx(before.losses.item(), rel=1e-5)
    assert after.statistics.tolist() == before.statistics.tolist()
    seq2seq.loss.loss_sum(adapted, batch).sum().backward()
    assert all(parameter.grad is not None for name, parameter in adapted.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize(
    ("rows", "steps", "token_accuracy", "bleu", "rouge", "exact"),
    [(400, 120, 0.2, 0.3, 0.08, 0), slow(None, 500, 0.35, 5, 0.2, 0.1)],
)
def test_training_improves_the_metrics(
    rows: int | None, steps: int, token_accuracy: float, bleu: float, rouge: float, exact: float, tmp_path: Path
) -> None:
    trained = learn(
        tmp_path, corpora.spelt_out()[:rows], model={"config": T5},
        objective={"type": "Seq2Seq", "seq2Seq": {"prefix": "spell: ", "maxTargetLength": 24}},
        training={"maxSteps": steps, "batchSize": 32, "microBatchSize": 32, "optimizer": {"learningRate": 5e-3}},
    )  # fmt: skip
    assert trained.before["tokenAccuracy"] < 0.05
    assert trained.before["bleu"] < 1
    assert trained.after["tokenAccuracy"] > token_accuracy
    assert trained.after["bleu"] > bleu
    assert trained.after["rougeL"] > rouge
    tokenizer, writer = AutoTokenizer.from_pretrained(trained.model), AutoModelForSeq2SeqLM.from_pretrained(trained.model)
    asked = corpora.spelt_out()[:rows:10]
    read = tokenizer(["spell: " + row["text"] for row in asked], return_tensors="pt", padding=True)
    texts = tokenizer.batch_decode(writer.generate(**read, max_new_tokens=24), skip_special_tokens=True)
    assert sum(text == row["target"] for text, row in zip(texts, asked, strict=True)) >= exact * len(asked)
