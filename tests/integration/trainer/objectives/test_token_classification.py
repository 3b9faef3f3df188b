"""Token classification: the loss of transformers, metrics of seqeval and scikit-learn, words and tokens, and training."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqeval import metrics as seqeval
from sklearn import metrics as sklearn
from tests.support import corpora, tiny
from tests.support.learning import learn
from tokenizers import Tokenizer, models
from torch.nn import functional
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    ByT5Tokenizer,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    pipeline,
)

from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus
from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.pretokenized import word_level_tokenizer
from finetune_trainer.objectives.token_classification import TAGS, TokenClassification
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

ROWS = corpora.tagged(20)
TOKENIZER = tokenizer_training.train_tokenizer([" ".join(row["tokens"]) for row in ROWS], 500, adds_special_tokens=True)
NAMES = {"tokens": "tokens", "tags": "tags"}
PARTS = {"O": "other", "B-KEYWORD": "keyword", "B-DEFINED": "noun", "B-CALLED": "verb", "I-CALLED": "verb"}
SPOKEN = [{"tokens": row["tokens"], "tags": [PARTS[tag] for tag in row["tags"]]} for row in ROWS]


def records(rows: list[dict[str, Any]]) -> list[Row]:
    return [make_row(row, NAMES, f"rows.jsonl:{number}") for number, row in enumerate(rows, start=1)]


def objective(rows: list[dict[str, Any]] = ROWS, tokenizer: Any = TOKENIZER, **changes: Any) -> TokenClassification:
    options, training = {"labels": changes.pop("labels", [])}, changes.pop("training", {})
    spec = tiny.spec(
        objective={"type": "TokenClassification", "tokenClassification": options}, data={"maxLength": 256, **changes},
        training=training,
    )  # fmt: skip
    made = TokenClassification.from_spec(spec, tokenizer)
    made.encoder.set_statistics(made.encoder.collect_statistics(lambda: records(rows)))
    return made


def encoded(tagger: TokenClassification, rows: list[dict[str, Any]]) -> list[EncodedRow]:
    return list(tagger.encoder.encode(records(rows)))


def batch_of(tagger: TokenClassification, rows: list[dict[str, Any]]) -> Batch:
    examples: list[Sample] = [example for one in encoded(tagger, rows) for example in one.examples]
    return tagger.collator.collate(examples, [], Layout())


def model(tagger: TokenClassification) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = BertConfig.from_dict(
        {
            "vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 256, "initializer_range": 0.5,
        }
        | tagger.model_setup.config_overrides()
    )  # fmt: skip
    made: PreTrainedModel = AutoModelForTokenClassification.from_config(settings).eval()
    return made


def guessed(
    tagger: TokenClassification, rows: list[dict[str, Any]]
) -> tuple[np.ndarray[Any, Any], list[list[str]], list[list[str]]]:
    """The statistics of two batches together, then the true and the predicted tags of each row."""
    learner, names = model(tagger), tagger.encoder.statistics["labels"]
    total, true, predicted = torch.zeros(()), [], []
    for part in (rows[::3], rows[1::3] + rows[2::3]):
        batch = batch_of(tagger, part)
        with torch.no_grad():
            total = total + tagger.metrics.measure(learner, batch).statistics
            guesses = learner(batch.inputs["input_ids"], batch.inputs["attention_mask"]).logits.argmax(-1)
        for labels, guess in zip(batch.targets["labels"], guesses, strict=True):
            words = labels != IGNORE_INDEX
            true.append([names[tag] for tag in labels[words]])
            predicted.append([names[tag] for tag in guess[words]])
    return total.numpy(), true, predicted


def test_first_token_of_each_word_has_its_tag() -> None:
    tagger = objective()
    names = tagger.encoder.statistics["labels"]
    assert names == ["B-CALLED", "B-DEFINED", "B-KEYWORD", "I-CALLED", "O"]
    for row, one in zip(ROWS, encoded(tagger, ROWS), strict=True):
        [example] = one.examples
        at = np.flatnonzero(example[TAGS] != IGNORE_INDEX)
        assert [names[tag] for tag in example[TAGS][at]] == row["tags"]
        assert example[TOKENS][0] == example[TOKENS][-1] == TOKENIZER.eos_token_id
        words = np.split(example[TOKENS][:-1], at)[1:]
        assert [TOKENIZER.decode(word) for word in words] == [f" {word}" for word in row["tokens"]]


@pytest.mark.parametrize("family", [None, GPT2Tokenizer, Qwen2Tokenizer])
def test_words_and_text_have_the_same_tokens_after_the_export(family: Any, tmp_path: Path) -> None:
    tokenizer = TOKENIZER
    if family:
        trained = json.loads(TOKENIZER.backend_tokenizer.to_str())["model"]
        tokenizer = family(vocab=trained["vocab"], merges=[tuple(pair) for pair in trained["merges"]])
    word_level_tokenizer(tokenizer).save_pretrained(tmp_path)
    for made in (word_level_tokenizer(tokenizer), AutoTokenizer.from_pretrained(tmp_path)):
        of_text = made(" ".join(ROWS[0]["tokens"]))["input_ids"]
        assert made(ROWS[0]["tokens"], is_split_into_words=True)["input_ids"] == of_text
    assert tokenizer("self")["input_ids"] != word_level_tokenizer(tokenizer)("self")["input_ids"], (
        "the given one stays as it was"
    )


def test_keeps_word_level_tokenizer() -> None:
    words = tiny.tokenizer()
    assert word_level_tokenizer(words) is words


def test_rejects_tokenizers_that_cannot_tokenize_words() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer: it has no character offsets of its tokens"):
        objective(tokenizer=ByT5Tokenizer())
    letters = Tokenizer(models.BPE({"a": 0, "b": 1, " ": 2}, []))
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer: words of a list become other tokens"):
        objective(tokenizer=PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="a"))


def test_computes_the_loss_of_transformers() -> None:
    tagger = objective()
    learner, batch = model(tagger), batch_of(tagger, ROWS)
    expected = learner(**tiny.model_arguments(batch)).loss
    mean = tagger.loss.loss_sum(learner, batch)[0] / tagger.collator.count_terms(batch)[0]
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    assert tagger.metrics.measure(learner, batch).losses[0].item() == pytest.approx(
        expected.item() * tagger.collator.count_terms(batch)[0], rel=1e-5
    )
    assert tagger.collator.count_terms(batch) == [sum(len(row["tags"]) for row in ROWS)]


def test_applies_label_smoothing_like_torch() -> None:
    tagger = objective(training={"labelSmoothing": 0.2})
    learner, batch = model(tagger), batch_of(tagger, ROWS)
    logits = learner(batch.inputs["input_ids"], batch.inputs["attention_mask"]).logits.flatten(0, 1)
    expected = functional.cross_entropy(logits, batch.targets["labels"].flatten(), reduction="sum", label_smoothing=0.2)
    assert tagger.loss.loss_sum(learner, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    plain = objective().loss.loss_sum(learner, batch)
    assert tagger.metrics.measure(learner, batch).losses.tolist() == plain.tolist() != expected.tolist()


@pytest.mark.parametrize("rows", [ROWS, SPOKEN], ids=["entities", "parts of speech"])
def test_computes_the_confusion_matrix_of_scikit_learn(rows: list[dict[str, Any]]) -> None:
    tagger = objective(rows)
    with torch.no_grad():
        statistics = tagger.metrics.measure(model(tagger), batch_of(tagger, rows)).statistics.numpy()
    _, true, predicted = guessed(tagger, rows)
    names = tagger.encoder.statistics["labels"]
    wanted = sklearn.confusion_matrix(list(chain(*true)), list(chain(*predicted)), labels=names).tolist()
    assert tagger.metrics.tables(statistics) == {"confusion": {"labels": names, "counts": wanted}}


def test_computes_entity_metrics_of_seqeval() -> None:
    tagger = objective()
    statistics, true, predicted = guessed(tagger, ROWS)
    matrix = sklearn.confusion_matrix(list(chain(*true)), list(chain(*predicted)), labels=tagger.encoder.statistics["labels"])
    assert tagger.metrics.tables(statistics)["confusion"]["counts"] == matrix.tolist()
    found = tagger.metrics.compute([1.0], statistics)
    assert found["accuracy"] == pytest.approx(seqeval.accuracy_score(true, predicted))
    assert 0 < found["microF1"] < 0.5
    scores = {"precision": seqeval.precision_score, "recall": seqeval.recall_score, "f1": seqeval.f1_score}
    for name, score in scores.items():
        assert found[f"micro{name.capitalize()}"] == pytest.approx(score(true, predicted))
        assert found[name] == pytest.approx(score(true, predicted, average="macro"))
    of_each = [found[f"f1[{kind}]"] for kind in ("CALLED", "DEFINED", "KEYWORD")]
    assert of_each == pytest.approx(seqeval.f1_score(true, predicted, average=None).tolist())


def test_computes_tag_metrics_of_scikit_learn() -> None:
    tagger = objective(SPOKEN)
    statistics, true, predicted = guessed(tagger, SPOKEN)
    found, labels = tagger.metrics.compute([1.0], statistics), tagger.encoder.statistics["labels"]
    flat, guess = list(chain(*true)), list(chain(*predicted))
    assert found["accuracy"] == found["microPrecision"] == pytest.approx(sklearn.accuracy_score(flat, guess))
    for name, score in (
        ("precision", sklearn.precision_score), ("recall", sklearn.recall_score), ("f1", sklearn.f1_score)
    ):  # fmt: skip
        assert found[name] == pytest.approx(score(flat, guess, average="macro", zero_division=0)), name
    matrix = sklearn.confusion_matrix(flat, guess, labels=labels).tolist()
    assert tagger.metrics.tables(statistics) == {"confusion": {"labels": labels, "counts": matrix}}
    assert {name for name in found if "[" in name} == {f"f1[{part}]" for part in ("keyword", "noun", "other", "verb")}


def test_rank_without_rows_has_zero_loss() -> None:
    tagger = objective()
    batch = tagger.collator.collate([], [], Layout())
    assert tagger.collator.count_terms(batch) == [0]
    total = tagger.loss.loss_sum(model(tagger), batch)
    total.sum().backward()
    assert total.item() == 0
    assert not tagger.metrics.measure(model(tagger), batch).statistics.any()


def test_number_is_the_index_of_a_given_label() -> None:
    rows = [{"tokens": ["a", "b", "c"], "tags": [0, 2, 1]}]
    named, numbered = objective(rows, labels=["O", "I-X", "B-X"]), objective(rows)
    assert named.encoder.statistics == {"labels": ["O", "I-X", "B-X"], "scheme": "BIO", "convertedToBIO": False}
    assert numbered.encoder.statistics == {"labels": ["0", "1", "2"], "scheme": None, "convertedToBIO": False}
    for tagger in (named, numbered):
        [example] = encoded(tagger, rows)[0].examples
        assert [tag for tag in example[TAGS] if tag != IGNORE_INDEX] == [0, 2, 1]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BILOU", ["B-PER", "I-PER", "L-PER", "O", "U-LOC", "B-LOC", "L-LOC"]),
        ("BIOES", ["B-PER", "I-PER", "E-PER", "O", "S-LOC", "B-LOC", "E-LOC"]),
        ("BIO", ["B_PER", "I_PER", "I_PER", "O", "B_LOC", "B_LOC", "I_LOC"]),
    ],
)
@pytest.mark.parametrize("given", [False, True], ids=["names", "numbers"])
def test_converts_entity_tags_to_bio(scheme: str, tags: list[str], given: bool) -> None:
    words = ["ann", "mary", "smith", "in", "oslo", "new", "york"]
    labels = sorted(set(tags)) if given else []
    rows = [{"tokens": words, "tags": [labels.index(tag) for tag in tags] if given else tags}]
    tagger = objective(rows, labels=labels)
    names = tagger.encoder.statistics["labels"]
    assert tagger.encoder.statistics | {"labels": sorted(names)} == {
        "labels": ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"], "scheme": scheme, "convertedToBIO": True
    }  # fmt: skip
    [row] = encoded(tagger, rows)
    [example] = row.examples
    bio = ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC"]
    assert [names[tag] for tag in example[TAGS] if tag != IGNORE_INDEX] == bio
    assert row.issues == []
    statistics, _, _ = guessed(tagger, rows)
    assert statistics[4:6].tolist() == [2, 1], "entities of LOC and of PER in the data"
    assert {"f1[LOC]", "f1[PER]"} <= tagger.metrics.compute([1.0], statistics).keys()


@pytest.mark.parametrize(
    ("good", "bad", "scheme"),
    [
        (["B-X", "I-X", "L-X", "U-X"], ["B-X", "O", "O", "O"], "BILOU"),
        (["B-X", "I-X", "O", "B-X"], ["O", "I-X", "O", "O"], "BIO"),
    ],
)
def test_finds_tags_that_break_their_scheme(good: list[str], bad: list[str], scheme: str) -> None:
    rows = [{"tokens": ["a", "b", "c", "d"], "tags": tags} for tags in (good, bad)]
    tagger = objective(rows)
    assert tagger.encoder.statistics["scheme"] == scheme
    assert [row.issues for row in encoded(tagger, rows)] == [[], [EncodeIssue.INCONSISTENT_TAGS]]


def test_recognizes_iob1() -> None:
    rows = [{"tokens": ["a", "b", "c"], "tags": ["I-X", "B-X", "O"]}, {"tokens": ["a", "b"], "tags": ["O", "I-X"]}]
    tagger = objective(rows)
    assert tagger.encoder.statistics == {"labels": ["B-X", "I-X", "O"], "scheme": "IOB1", "convertedToBIO": False}
    assert [row.issues for row in encoded(tagger, rows)] == [[], []]


def test_finds_words_without_tokens() -> None:
    rows = [{"tokens": ["a", "", "b"], "tags": ["x", "y", "x"]}, {"tokens": ["a", ""], "tags": ["x", -100]}]
    assert [row.issues for row in encoded(objective(rows), rows)] == [[EncodeIssue.UNTOKENIZED_WORDS], []]


@pytest.mark.parametrize("missing", [-100, -1, "-100"])
def test_tags_that_mean_no_tag_have_no_loss(missing: Any) -> None:
    rows = [{"tokens": ["a", "b", "c", "d"], "tags": [0, missing, 2, 1]}, {"tokens": ["a"], "tags": [missing]}]
    tagger = objective(rows)
    assert tagger.encoder.statistics["labels"] == ["0", "1", "2"]
    kept, left_out = encoded(tagger, rows)
    assert [tag for tag in kept.examples[0][TAGS] if tag != IGNORE_INDEX] == [0, 2, 1]
    assert (left_out.examples, left_out.status) == ([], EncodeStatus.UNLABELED)


@pytest.mark.parametrize("overlong", ["Truncate", "Drop"])
def test_encodes_long_and_empty_texts(overlong: str) -> None:
    rows = [
        {"tokens": ["self"] * 99, "tags": ["a"] * 98 + ["b"]}, {"tokens": [], "tags": []}, {"tokens": [""], "tags": ["a"]},
        {"tokens": ["self", "x"], "tags": ["a", "b"]},
    ]  # fmt: skip
    first, *others = encoded(objective(rows, overlong=overlong, maxLength=32), rows)
    assert [one.status for one in others] == [EncodeStatus.EMPTY, EncodeStatus.EMPTY, EncodeStatus.KEPT]
    if overlong == "Drop":
        assert (first.examples, first.status) == ([], EncodeStatus.DROPPED)
    else:
        assert first.status is EncodeStatus.TRUNCATED
        [example] = first.examples
        assert len(example[TOKENS]) == len(example[TAGS]) == 32
        assert (example[TAGS] != IGNORE_INDEX).sum() == 30


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "column tags has 1 labels for 2 words: correct the row"),
        ({"tokens": ["a"], "tags": ["B-NEW"]}, "column tags is 'B-NEW', which is none of the labels (B-CALLED, B-DEFINED, "),
        ({"tokens": ["a"], "tags": [5]}, "column tags is '5', which is none of the labels (B-CALLED, "),
        ({"tokens": "a b", "tags": ["O"]}, "column tokens is a string (CSV holds nothing else: write JSONLines or Parquet), "),
        ({"tokens": ["a", None], "tags": ["O"]}, "column tokens is a list whose item 2 is null, not a string: correct"),
        ({"tokens": ["a"], "tags": None}, "column tags is null, not a list of labels: correct the row"),
        ({"tokens": ["a"], "tags": [0.5]}, "column tags is a list whose item 1 is 0.5, neither a label nor a label's number"),
    ],
)
def test_rejects_invalid_rows(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        encoded(objective(), [row])
    assert str(raised.value).startswith(f"rows.jsonl:1: {message}")


def test_rejects_a_single_tag() -> None:
    with pytest.raises(DataError, match=r"^spec.data.train: every row has the same label 'O'"):
        objective([{"tokens": ["a", "b"], "tags": ["O", "O"]}])


def test_training_improves_the_metrics(tmp_path: Path) -> None:
    trained = learn(tmp_path, corpora.tagged(), objective={"type": "TokenClassification"}, training={"maxSteps": 80})
    assert trained.before["microF1"] < 0.2
    assert trained.after["microF1"] > 0.6
    words = ["def", "__init__", "(", "self", ")", ":", "if", "answer", ":", "return", "self"]
    keywords, defined = {("def", "KEYWORD"), ("if", "KEYWORD"), ("return", "KEYWORD")}, {("__init__", "DEFINED")}
    for strategy in ("simple", "first"):
        tag = pipeline("token-classification", str(trained.model), aggregation_strategy=strategy)
        for entities in (tag(" ".join(words)), tag(words, is_split_into_words=True)[0]):
            found = {(entity["word"].strip(), entity["entity_group"]) for entity in entities}
            assert keywords <= found
            assert defined <= found or strategy == "simple", "a word's first token speaks for it"
