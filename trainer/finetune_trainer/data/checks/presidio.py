"""Personal data as Microsoft's presidio-analyzer finds it, with the language models that are beside it on this machine."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finetune_trainer.data.checks.personal_data import Detector
from finetune_trainer.protocol.outcome import ConfigurationError

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, AnalyzerEngineProvider

FIELD = "spec.data.checks.personalDataDetector"
CONFIGURATION = "ANALYZER_CONF_FILE"  # presidio's own server reads this variable too
_PIECE = re.compile(r"(?s).{1,99999}(?:\s|\Z)|.{1,100000}")  # spaCy refuses a text of a million characters


@functools.cache
def detector(configuration: str | None) -> Detector:
    """Finds what the configuration file says, or presidio's own without one; its models are loaded at the first text.

    Raises ConfigurationError where presidio, or a model that it would then fetch from the network, is not installed.
    """
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise ConfigurationError(
            f"{FIELD}: there is no presidio-analyzer here: use an image that has it and a spaCy model, or remove the field"
        )
    # Before the import: what recognizes the end of an address would ask the network for the newest list of them.
    os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
    import spacy

    with _explained():
        provider, models = _read(configuration)
    for model in models:
        if not (spacy.util.is_package(model) or Path(model).exists()):
            raise ConfigurationError(
                f"{FIELD}: presidio-analyzer needs the model {model}, which is not installed: use an image that has it, or "
                f"set {CONFIGURATION} to a configuration file with another one"
            )
    analyzer = functools.cache(lambda: _analyzer(provider))
    versions = {model: spacy.util.get_package_version(model) for model in models}
    return Detector(
        ["Presidio", version("presidio-analyzer"), provider.configuration, versions],
        lambda text, found: "".join(_replaced(piece, analyzer(), found) for piece in _PIECE.findall(text)),
    )


def _read(configuration: str | None) -> tuple[AnalyzerEngineProvider, list[str]]:
    """What makes the analyzer, and the names of the models that it will load."""
    from presidio_analyzer import AnalyzerEngineProvider
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    provider = AnalyzerEngineProvider(configuration)
    language = NlpEngineProvider(nlp_configuration=provider.configuration.get("nlp_configuration")).nlp_configuration
    names = [model["model_name"] for model in language["models"]]
    return provider, [part for name in names for part in (name.values() if isinstance(name, dict) else [name])]


def _analyzer(provider: AnalyzerEngineProvider) -> AnalyzerEngine:
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # it tells of each recognizer that it leaves out
    with _explained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return provider.create_engine()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(
            f"{FIELD}: presidio-analyzer cannot be used ({text}): correct the file that {CONFIGURATION} names"
        ) from error


class _Region(NamedTuple):
    """Where something personal stands, in characters, and what it most likely is."""

    begin: int
    end: int
    score: float
    kind: str


def _replaced(text: str, analyzer: AnalyzerEngine, found: Callable[[str], None]) -> str:
    results = (result for language in analyzer.supported_languages for result in analyzer.analyze(text, language))
    parts, end = [], 0
    for region in _regions(_Region(result.start, result.end, result.score, result.entity_type) for result in results):
        found(region.kind)
        parts += [text[end : region.begin], f"[{region.kind}]"]
        end = region.end
    return "".join([*parts, text[end:]])


def _regions(results: Iterable[_Region]) -> list[_Region]:
    """The same without overlaps: what overlaps becomes one, of the kind that is surest and then longest."""
    regions: list[_Region] = []
    for one in sorted(results):
        if regions and one.begin < regions[-1].end:
            last = regions.pop()
            surest = max(last, one, key=lambda region: (region.score, region.end - region.begin))
            one = _Region(last.begin, max(last.end, one.end), surest.score, surest.kind)
        regions.append(one)
    return regions
