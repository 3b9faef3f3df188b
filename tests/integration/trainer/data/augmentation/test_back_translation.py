"""Back-translated copies: the output of two real encoder-decoders in sequence, independent of the batch."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import ciphers, tiny
from tests.support.learning import learn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, LogitsProcessorList

from finetune_trainer import config, objectives
from finetune_trainer.data.augmentation.back_translation import GumbelMax
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import tokenizer_training
from finetune_trainer.objectives.inputs.class_labels import TARGET
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials

ENGLISH = ["good", "fine", "big", "large", "dog", "cat", "the", "hush"]
GERMAN = ["gut", "gross", "hund", "katze", "die"]
FORWARD = {
    "good": {"gut": 1}, "fine": {"gut": 1}, "big": {"gross": 1}, "large": {"gross": 1}, "dog": {"hund": 1},
    "cat": {"katze": 1}, "the": {"die": 1}, "hush": {ciphers.END: 1},
}  # fmt: skip
BACK = {
    "gut": {"good": 1, "fine": 0.95}, "gross": {"big": 1, "large": 0.95}, "hund": {"dog": 1}, "katze": {"cat": 1},
    "die": {"the": 1},
}  # fmt: skip
TOKENIZER = tokenizer_training.train_tokenizer([" ".join(ENGLISH)] * 2, 400, adds_special_tokens=True)
RANDOM = np.random.default_rng(1)
ROWS = sorted({" ".join(RANDOM.choice(ENGLISH[:7], RANDOM.integers(1, 9))) for _ in range(60)})
Make = Callable[..., Prepared]


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two models with vocabularies of different size, so that some words come back as synonyms."""
    folder = tmp_path_factory.mktemp("translators")
    return {
        direction: {"source": ciphers.save(folder / direction, ENGLISH + GERMAN, dictionary)}
        for direction, dictionary in (("forward", FORWARD), ("back", BACK))
    }


@pytest.fixture
def make(tmp_path: Path, translators: dict[str, Any]) -> Make:
    """Prepares rows, each a text or a row, with `options` of the translation and other options of the augmentation."""

    def prepared(
        rows: list[Any], *, cache: str = "cache", objective: str = "MaskedLM", seed: int = 1, options: Any = None,
        held_out: float | None = 0.2, **other: Any,
    ) -> Prepared:  # fmt: skip
        named = [row if isinstance(row, dict) else {"text": row} for row in rows]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
        translation = translators | {"maxLength": 16} | (options or {})
        document = tiny.spec(training={"seed": seed}).document() | {
            "objective": {"type": objective},
            "data": {
                "train": [{"source": f"file://{tmp_path}/rows.jsonl"}], "packing": False, "evaluationFraction": held_out,
                "augmentation": {"backTranslation": translation} | other,
            },
        }  # fmt: skip
        spec = config.TrainSpec.model_validate(document)
        return prepare(
            spec, objectives.from_spec(spec, TOKENIZER).encoder, SourceResolver(spec.objective, tmp_path / cache, Credentials())
        )

    return prepared


def texts(rows: ArrowDataset | None) -> list[str]:
    return [TOKENIZER.decode(row[TOKENS], skip_special_tokens=True) for row in rows or ()]


def generated(source: str, text: str) -> str:
    """The output of transformers' generate for one text."""
    folder = source.removeprefix("file://")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt")
    [output] = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, num_beams=1, max_new_tokens=16
    )
    return str(tokenizer.decode(output, skip_special_tokens=True))


def test_copies_equal_the_output_of_generate(make: Make, translators: dict[str, Any]) -> None:
    found = make(ROWS)
    train, evaluation = texts(found.train), texts(found.evaluation)
    assert evaluation
    assert set(evaluation) < set(ROWS)
    assert train[::2] == [row for row in ROWS if row not in evaluation]
    assert train[1::2] == [row.replace("fine", "good").replace("large", "big") for row in train[::2]]
    for row, copy in list(zip(train[::2], train[1::2], strict=True))[::8]:
        assert copy == generated(translators["back"]["source"], generated(translators["forward"]["source"], row))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_copies_do_not_depend_on_the_batch_size(make: Make, temperature: float) -> None:
    options = {"temperature": temperature}
    here = texts(make(ROWS[:20], options=options, noise=0.02).train)
    for size in (1, 7):
        assert texts(make(ROWS[:20], options=options | {"batchSize": size}, noise=0.02).train) == here
    assert texts(make(ROWS[:20], options=options, noise=0.02, cache="another machine").train) == here


def test_sampled_copies_differ_from_each_other_and_by_seed(make: Make) -> None:
    sampled = {"options": {"temperature": 1.0}, "copies": 3}
    train = texts(make(ROWS, **sampled).train)
    copies = [train[number::4] for number in (1, 2, 3)]
    assert all(one != other for one, other in ((copies[0], copies[1]), (copies[1], copies[2]), (copies[0], copies[2])))
    words = Counter(word for copy in copies for text in copy for word in text.split())
    wanted = Counter(word for text in train[::4] for word in text.split())
    assert words["dog"] == 3 * wanted["dog"]
    share = words["fine"] / (words["fine"] + words["good"])
    assert 0.18 < share < 0.38, "the model's probability is 0.28"
    assert texts(make(ROWS, **sampled, seed=2).train) != train


def test_gumbel_noise_samples_from_the_distribution() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0, -torch.inf]])
    sampling = LogitsProcessorList([GumbelMax(0.5, [np.random.default_rng(1)])])
    drawn = Counter(int(sampling(None, scores).argmax()) for _ in range(4000))
    expected = (scores[0] / 0.5).softmax(-1).tolist()
    assert [drawn[token] / 4000 for token in range(5)] == pytest.approx(expected, abs=0.02)


def test_words_of_the_translation_are_swapped(make: Make) -> None:
    train = texts(make(ROWS, swap=0.5).train)
    pairs = list(zip(train[::2], train[1::2], strict=True))
    translated = [row.replace("fine", "good").replace("large", "big") for row, _ in pairs]
    assert [sorted(copy.split()) for _, copy in pairs] == [sorted(text.split()) for text in translated]
    assert [copy for _, copy in pairs] != translated


def test_keeps_a_text_without_a_translation(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    long = " ".join(["large"] * 16)
    with caplog.at_level(logging.WARNING):
        found = make(["hush the dog", "large dog", long, "  ", "fine cat", "fine"], options={"batchSize": 2}, held_out=None)
    train = texts(found.train)
    copies = dict(zip(train[::2], train[1::2], strict=True))
    assert copies == {
        "hush the dog": "hush the dog", "large dog": "big dog", long: long, "  ": "  ", "fine cat": "good cat", "fine": "good"
    }  # fmt: skip
    lines = [record.getMessage() for record in caplog.records if "own words" in record.getMessage()]
    assert [line.partition(" in a copy")[0] for line in lines] == ["data: 2 of 5 texts keep their own words"]


def test_adds_the_prefix_and_keeps_other_columns(make: Make, translators: dict[str, Any]) -> None:
    rows = [{"text": row, "label": "even" if number % 2 else "odd"} for number, row in enumerate(ROWS)]
    forward = translators["forward"] | {"prefix": "the "}
    found = make(rows, objective="SequenceClassification", options={"forward": forward})
    labels = [int(row[TARGET][0]) for row in found.train]
    assert labels[::2] == labels[1::2]
    assert set(labels) == {0, 1}
    train = texts(found.train)
    assert train[1::2] == ["the " + row.replace("fine", "good").replace("large", "big") for row in train[::2]]


def test_changed_models_prepare_again(make: Make, translators: dict[str, Any], tmp_path: Path) -> None:
    source = ciphers.save(tmp_path / "own", ENGLISH + GERMAN, BACK)
    before = texts(make(ROWS, options={"back": {"source": source}}).train)
    ciphers.save(tmp_path / "own", ENGLISH + GERMAN, BACK | {"gut": {"fine": 1}})
    after = texts(make(ROWS, options={"back": {"source": source}}).train)
    assert after[::2] == before[::2]
    assert [text.replace("good", "fine") for text in before[1::2]] == after[1::2]


def test_logs_progress(make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("finetune_trainer.data.progress.REPORT_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        count = len(make(ROWS, options={"batchSize": 16}).train) // 2
    lines = [record.getMessage() for record in caplog.records if "translated" in record.getMessage()]
    assert lines[0].partition(",")[0] == "data: 16 texts translated"
    assert lines[-1].startswith(f"data: {count} texts translated")


def test_rejects_rows_with_a_tag_per_word(make: Make) -> None:
    rows = [{"tokens": ["fine", "dog"], "tags": ["a", "b"]}, {"tokens": ["the", "dog"], "tags": ["a", "b"]}] * 10
    with pytest.raises(ConfigurationError, match=r"^spec.data.augmentation: column tokens cannot be altered without the rest"):
        make(rows, objective="TokenClassification")


def test_rejects_unusable_translators(make: Make, translators: dict[str, Any], tmp_path: Path) -> None:
    def error_of(**options: Any) -> str:
        with pytest.raises(ConfigurationError) as raised:
            make(ROWS, options=options)
        return str(raised.value).removeprefix("spec.data.augmentation.backTranslation.")

    tiny.llama().save_pretrained(tmp_path / "llama")
    llama = f"file://{tmp_path}/llama"
    assert error_of(back={"source": llama}) == (
        f"back.source: {llama} is a llama, not an encoder-decoder that translates: name another source"
    )
    absent = f"file://{tmp_path}/absent"
    assert error_of(forward={"source": absent}).startswith(f"forward.source: {absent} does not exist")
    (tmp_path / "empty").mkdir()
    empty = f"file://{tmp_path}/empty"
    assert error_of(forward={"source": empty}).startswith(f"forward.source: {empty} holds no usable model configuration (")
    assert error_of(maxLength=64) == (
        f"maxLength: {translators['forward']['source']} has positions for {ciphers.POSITIONS} tokens only: lower it"
    )
    source = Path(ciphers.save(tmp_path / "partly", ENGLISH + GERMAN, FORWARD).removeprefix("file://"))
    weights = dict(AutoModelForSeq2SeqLM.from_pretrained(source).state_dict())
    bart = AutoModelForSeq2SeqLM.from_pretrained(source)
    bart.save_pretrained(source, state_dict={name: one for name, one in weights.items() if "fc1" not in name})
    assert error_of(forward={"source": f"file://{source}"}).startswith(
        f"forward.source: file://{source} lacks 2 weights of a BartForConditionalGeneration (model.decoder.layers.0.fc1.bias, "
    )


@pytest.mark.slow
def test_a_model_learns_words_that_only_copies_contain(translators: dict[str, Any], tmp_path: Path) -> None:
    def rows(words: dict[str, str]) -> list[dict[str, Any]]:
        random = np.random.default_rng(3)
        texts = [[*random.choice(["the", "dog", "cat"], 3), list(words)[number % 2]] for number in range(64)]
        return [{"text": " ".join(random.permutation(text)), "label": words[text[-1]]} for text in texts]

    held_out = tmp_path / "others.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows({"fine": "praise", "large": "size"})))
    source = {"source": f"file://{held_out}"}
    accuracies = []
    for augmentation in (None, {"copies": 4, "backTranslation": translators | {"maxLength": 16, "temperature": 1.0}}):
        trained = learn(
            tmp_path / f"{len(accuracies)}", rows({"good": "praise", "big": "size"}),
            objective={"type": "SequenceClassification"}, training={"maxSteps": 60},
            data={"evaluation": [source], "evaluationFraction": None, "augmentation": augmentation, "maxLength": 32},
        )  # fmt: skip
        accuracies.append(trained.after["accuracy"])
    assert accuracies[0] < 0.75
    assert accuracies[1] > 0.95
