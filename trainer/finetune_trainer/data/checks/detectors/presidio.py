"""The detector of Microsoft's presidio-analyzer, with language models that are installed on this machine."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune_trainer.data.checks.detectors.base import Detector, OnMatch
from finetune_trainer.protocol.outcome import ConfigurationError, first_line

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, AnalyzerEngineProvider

FIELD = "spec.data.checks.personalDataDetector"
CONFIGURATION = "ANALYZER_CONF_FILE"  # presidio's own server reads this variable too
_PIECE = re.compile(r"(?s).{1,99999}(?:\s|\Z)|.{1,100000}")  # spaCy rejects a text of a million characters


@functools.cache
def detector(configuration: str | None) -> Detector:
    """A detector with this configuration file, or with presidio's defaults; it loads its models at the first text.

    Raises ConfigurationError if presidio or one of its models is not installed; presidio would download a missing model.
    """
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise ConfigurationError(
            f"{FIELD}: there is no presidio-analyzer here: use an image that has it and a spaCy model, or remove the field"
        )
    # Set before the import: tldextract would otherwise download the newest list of domain suffixes.
    os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
    import spacy

    with _configuration_errors():
        provider = _engine_provider(configuration)
        models = _model_names(provider)
    for model in models:
        if not (spacy.util.is_package(model) or Path(model).exists()):
            raise ConfigurationError(
                f"{FIELD}: presidio-analyzer needs the model {model}, which is not installed: use an image that has it, or "
                f"set {CONFIGURATION} to a configuration file with another one"
            )
    engine = functools.cache(lambda: _create_engine(provider))
    versions = {model: spacy.util.get_package_version(model) for model in models}

    def replace(text: str, on_match: OnMatch) -> str:
        return "".join(_replace(piece, engine(), on_match) for piece in _PIECE.findall(text))

    return Detector(["Presidio", version("presidio-analyzer"), provider.configuration, versions], replace)


def _engine_provider(configuration: str | None) -> AnalyzerEngineProvider:
    from presidio_analyzer import AnalyzerEngineProvider

    return AnalyzerEngineProvider(configuration)


def _model_names(provider: AnalyzerEngineProvider) -> list[str]:
    """The models that the analyzer will load."""
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    settings = NlpEngineProvider(nlp_configuration=provider.configuration.get("nlp_configuration")).nlp_configuration
    names: list[str] = []
    for model in settings["models"]:
        name = model["model_name"]
        names += name.values() if isinstance(name, dict) else [name]
    return names


def _create_engine(provider: AnalyzerEngineProvider) -> AnalyzerEngine:
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # it warns of each recognizer that it leaves out
    with _configuration_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return provider.create_engine()


@contextmanager
def _configuration_errors() -> Iterator[None]:
    """Turn any error of presidio into a ConfigurationError."""
    try:
        yield
    except Exception as error:
        reason = first_line(error)
        raise ConfigurationError(
            f"{FIELD}: presidio-analyzer cannot be used ({reason}): correct the file that {CONFIGURATION} names"
        ) from error


class _Region(NamedTuple):
    """A range of characters with personal data, and its most likely kind."""

    begin: int
    end: int
    score: float
    kind: str


def _replace(text: str, engine: AnalyzerEngine, on_match: OnMatch) -> str:
    regions = []
    for language in engine.supported_languages:
        for result in engine.analyze(text, language):
            regions.append(_Region(result.start, result.end, result.score, result.entity_type))
    parts, end = [], 0
    for region in _merge_overlaps(regions):
        on_match(region.kind)
        parts += [text[end : region.begin], f"[{region.kind}]"]
        end = region.end
    return "".join([*parts, text[end:]])


def _merge_overlaps(regions: Iterable[_Region]) -> list[_Region]:
    """The regions in order, with overlapping ones merged; a merged region has the kind of the best score, then the longest."""
    merged: list[_Region] = []
    for region in sorted(regions):
        if merged and region.begin < merged[-1].end:
            last = merged.pop()
            best = max(last, region, key=lambda candidate: (candidate.score, candidate.end - candidate.begin))
            region = _Region(last.begin, max(last.end, region.end), best.score, best.kind)
        merged.append(region)
    return merged
