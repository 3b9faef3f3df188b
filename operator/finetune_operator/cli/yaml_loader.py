"""Loads FineTuneJobs from YAML files and reports every error with its file and line."""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from finetune_operator.api import GROUP, KIND, FineTuneJob
from finetune_trainer.config import explain

STANDARD_INPUT = "-"
MERGE_TAG = "tag:yaml.org,2002:merge"
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
FLOAT_TAG = "tag:yaml.org,2002:float"
NULL_TAG = "tag:yaml.org,2002:null"


class DocumentError(Exception):
    """A file is unreadable, is not YAML, or has invalid jobs; each error is one sentence that begins with file and line."""

    def __init__(self, *validation_errors: str) -> None:
        super().__init__("\n".join(validation_errors))
        self.validation_errors = validation_errors


class Document(NamedTuple):
    """One YAML document of a file, with the node tree that records the line of each field."""

    file: str
    content: dict[str, Any]
    node: yaml.Node

    @property
    def is_job(self) -> bool:
        """Whether this is meant to be a FineTuneJob: its kind or API group says so, or it has no kind at all."""
        version = str(self.content.get("apiVersion", ""))
        return self.content.get("kind", KIND) == KIND or version.startswith(f"{GROUP}/")

    def file_and_line(self, location: tuple[int | str, ...]) -> str:
        """FILE:LINE of a field, or of its nearest parent that is present."""
        node, line = self.node, self.node.start_mark.line
        for part in location:
            entry = _child(node, part)
            if entry is None:
                break
            key, node = entry
            line = key.start_mark.line
        return f"{self.file}:{line + 1}"


class LoadedJob(NamedTuple):
    """A valid FineTuneJob and the YAML document it was loaded from."""

    job: FineTuneJob
    document: Document


class _Loader(yaml.SafeLoader):
    """Parses YAML as the API server does: no timestamps, numbers such as 1e-4, and no duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            if key is None or not isinstance(key, Hashable):
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                raise DocumentError(f"{self.name}:{line}: duplicate key {key} (first in line {lines[key]}); remove one")
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first_character: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
    for first_character, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(FLOAT_TAG, re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def load_jobs(file: str, is_stored: bool = False) -> list[LoadedJob]:
    """Load the FineTuneJobs of a file, or of standard input for "-". Of stored jobs the status is ignored.

    Raises DocumentError with every error of every job, or if the file has no job.
    """
    documents = [document for document in load_documents(file) if document.is_job]
    if not documents:
        raise DocumentError(f"{_display_name(file)}: contains no {KIND}; add one")
    loaded: list[LoadedJob] = []
    errors: list[str] = []
    for document in documents:
        if is_stored:
            document.content.pop("status", None)
        try:
            loaded.append(LoadedJob(FineTuneJob.model_validate(document.content), document))
        except ValidationError as error:
            locations = [item["loc"] for item in error.errors(include_url=False)]
            for location, sentence in zip(locations, explain(error), strict=True):
                errors.append(f"{document.file_and_line(location)}: {sentence}")
    if errors:
        raise DocumentError(*errors)
    return loaded


def load_job(file: str) -> LoadedJob:
    """Load the only FineTuneJob of a file; raises DocumentError with every error, or if the file has several."""
    jobs = load_jobs(file)
    if len(jobs) > 1:
        names = ", ".join(loaded.job.metadata.name for loaded in jobs)
        raise DocumentError(f"{file} contains {len(jobs)} FineTuneJobs ({names}): put the one to use in its own file")
    return jobs[0]


def load_documents(file: str) -> list[Document]:
    """Load all YAML documents of a file, or of standard input for "-"; raises DocumentError."""
    name, text = _display_name(file), _read_text(file)
    try:
        return _parse(name, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        raise DocumentError(f"{place}: invalid YAML: {error.problem or error.context}; correct it") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"{name}: invalid YAML: {' '.join(str(error).split())}; correct it") from None


def _display_name(file: str) -> str:
    return "standard input" if file == STANDARD_INPUT else file


def _read_text(file: str) -> str:
    if file == STANDARD_INPUT:
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DocumentError(f"{file}: not UTF-8 text; is this the right file?") from None


def _parse(name: str, text: str) -> list[Document]:
    loader = _Loader(text)
    loader.name = name
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and node.tag != NULL_TAG:
                documents.append(_build_document(name, node, loader))
    finally:
        loader.dispose()
    return documents


def _build_document(name: str, node: yaml.Node, loader: _Loader) -> Document:
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise DocumentError(f"{name}:{line}: not a mapping; a document begins with apiVersion: and kind:")
    return Document(name, loader.construct_document(node), node)


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Key and value node of a mapping's field; for an item of a list, the item twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
