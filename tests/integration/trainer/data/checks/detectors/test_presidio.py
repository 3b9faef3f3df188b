"""The detector of presidio-analyzer, with a blank spaCy pipeline, so that only presidio's patterns match."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
import yaml
from tests.support import tiny

from finetune_trainer import config, objectives
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.detectors.patterns import BUILT_IN
from finetune_trainer.data.checks.detectors.presidio import CONFIGURATION
from finetune_trainer.data.loading.dataset import TOKENS
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.distributed.preemption import PreemptionSignal
from finetune_trainer.models import tokenizer_training
from finetune_trainer.models.tokenizer_training import training_corpus
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training import trainer
from finetune_trainer.training.launch_context import LaunchContext

TEXT = "Write to jane@mail.example.org or call (212) 555-0123; the card is 4111 1111 1111 1111, in full."
SCRUBBED = "Write to [EMAIL_ADDRESS] or call [PHONE_NUMBER]; the card is [CREDIT_CARD], in full."
TOKENIZER = tokenizer_training.train_tokenizer([TEXT, SCRUBBED], 400, adds_special_tokens=True)
PRESIDIO = {"personalDataDetector": "Presidio"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A configuration with a blank model and a minimum score."""
    model = tmp_path_factory.mktemp("spacy") / "blank"
    spacy.blank("en").to_disk(model)
    models = [{"lang_code": "en", "model_name": str(model)}]
    return {
        "supported_languages": ["en"], "default_score_threshold": 0.3,
        "nlp_configuration": {"nlp_engine_name": "spacy", "models": models},
    }  # fmt: skip


@pytest.fixture
def configured(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file that the environment variable names."""
    file = tmp_path / "analyzer.yaml"
    file.write_text(yaml.safe_dump(settings))
    monkeypatch.setenv(CONFIGURATION, str(file))
    return file


def checks(**changes: Any) -> config.DataChecksConfig:
    return config.DataChecksConfig.model_validate(PRESIDIO | changes)


def prepared(folder: Path, texts: list[str], **changes: Any) -> Prepared:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = {"train": [{"source": f"file://{folder}/rows.jsonl"}], "packing": False, "checks": PRESIDIO | changes}
    spec = config.TrainSpec.model_validate(tiny.spec().document() | {"objective": {"type": "MaskedLM"}, "data": data})
    return prepare(
        spec,
        objectives.from_spec(spec, TOKENIZER).encoder,
        SourceResolver(spec.objective, folder / "cache", Credentials()),
    )


def training_texts(data: Prepared) -> list[str]:
    return [TOKENIZER.decode(row[TOKENS], skip_special_tokens=True) for row in data.train]


def test_counts_and_replaces_personal_data(configured: Path) -> None:
    detector = detector_for(checks())
    assert detector.scrub(TEXT) == SCRUBBED
    assert detector.find(TEXT) == {"EMAIL_ADDRESS": 1, "PHONE_NUMBER": 1, "CREDIT_CARD": 1}
    assert (detector.scrub(""), detector.scrub("none\n of  it ")) == ("", "none\n of  it ")
    assert detector_for(checks()) is detector, "detectors are cached"


def test_splits_texts_beyond_the_limit_of_spacy(configured: Path) -> None:
    words = "seven words without anything personal in them " * 2500
    assert detector_for(checks()).scrub(f"{words}{TEXT} {words}") == f"{words}{SCRUBBED} {words}"
    assert detector_for(checks()).scrub("x" * 100_001) == "x" * 100_001


@pytest.mark.parametrize(
    "text",
    [
        "mail jane.doe+list@mail.example.co.uk, please",
        "a@example.org and b@example.net",
        "nobody@localhost",
        "@property def a",
        "ends with me@example.com.",
    ],
)
def test_agrees_with_the_built_in_detector_on_email_addresses(configured: Path, text: str) -> None:
    assert detector_for(checks()).scrub(text) == BUILT_IN.scrub(text).replace("[EMAIL]", "[EMAIL_ADDRESS]")


def test_warns_scrubs_drops_or_fails(configured: Path, tmp_path: Path) -> None:
    rows = [TEXT, "nothing here"]
    warned, scrubbed, dropped = (prepared(tmp_path, rows, personalData=policy) for policy in ("Warn", "Scrub", "Drop"))
    assert (training_texts(warned), training_texts(scrubbed), training_texts(dropped)) == (rows, [SCRUBBED, rows[1]], [rows[1]])
    for found in (warned, scrubbed, dropped):
        assert "with personal data: 1 EMAIL_ADDRESS, 1 PHONE_NUMBER, 1 CREDIT_CARD;" in "".join(
            finding.sentence for finding in found.report.findings
        )
    with pytest.raises(DataError, match=r"rows.jsonl:1: one of 1 training rows, of 2, with personal data \(1 EMAIL_ADDRESS"):
        prepared(tmp_path, rows, personalData="Fail")


def test_tokenizer_corpus_is_scrubbed(configured: Path, tmp_path: Path) -> None:
    prepared(tmp_path, [TEXT])
    resolver = SourceResolver(config.ObjectiveSpec(), tmp_path / "cache", Credentials())
    document = {"train": [{"source": f"file://{tmp_path}/rows.jsonl"}], "checks": {"personalData": "Scrub"}}
    built_in = training_corpus(config.DataConfig.model_validate(document), resolver)
    scrubbed = config.DataConfig.model_validate(document | {"checks": PRESIDIO | {"personalData": "Scrub"}})
    corpus = training_corpus(scrubbed, resolver)
    assert list(corpus()) == [SCRUBBED]
    assert corpus.identity != built_in.identity


def test_another_configuration_prepares_again(configured: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    assert training_texts(prepared(tmp_path, [TEXT], personalData="Scrub")) == [SCRUBBED]
    strict = configured.with_name("strict.yaml")
    strict.write_text(yaml.safe_dump(settings | {"default_score_threshold": 0.9}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONFIGURATION, str(strict))
        assert training_texts(prepared(tmp_path, [TEXT], personalData="Scrub")) == [
            SCRUBBED.replace("[PHONE_NUMBER]", "(212) 555-0123")
        ]


def startup_error(spec: config.TrainSpec, folder: Path) -> str:
    """The error of a rank that cannot start."""
    place = LaunchContext(0, 1, 0, 1, "localhost:1", "a", folder, folder / "cache", Credentials(), "tests/tiny", "run")
    with pytest.raises(ConfigurationError) as raised:
        trainer.run(spec, place, lambda event: None, PreemptionSignal())
    return str(raised.value).removeprefix("spec.data.checks.personalDataDetector: ")


def test_reports_missing_installations_before_reading_data(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tiny.spec().document() | {"data": {"train": [{"source": "file:///absent"}], "checks": PRESIDIO}}
    spec = config.TrainSpec.model_validate(document)
    assert startup_error(spec, tmp_path).startswith(
        "presidio-analyzer needs the model en_core_web_lg, which is not installed: use an"
    )
    for name, content, sentence in [
        (
            "absent",
            None,
            f"presidio-analyzer cannot be used (Configuration file does not exist: {tmp_path}/absent): correct the",
        ),
        ("empty", "supported_languages: 5", "presidio-analyzer cannot be used ("),
        ("other", yaml.safe_dump(settings).replace("blank", "gone"), "presidio-analyzer needs the model /"),
    ]:
        if content is not None:
            (tmp_path / name).write_text(content)
        monkeypatch.setenv(CONFIGURATION, str(tmp_path / name))
        assert startup_error(spec, tmp_path).startswith(sentence)
    monkeypatch.setenv(CONFIGURATION, "another")
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    assert startup_error(spec, tmp_path).startswith(
        "there is no presidio-analyzer here: use an image that has it and a spaCy model,"
    )
