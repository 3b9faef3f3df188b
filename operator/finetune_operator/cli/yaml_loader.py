"""FineTuneJobs out of YAML files, and every mistake in them with its place."""

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
MERGE = "tag:yaml.org,2002:merge"


class DocumentError(Exception):
    """A file does not hold what it should; each mistake is one sentence that begins with the place."""

    def __init__(self, *validation_errors: str) -> None:
        super().__init__("\n".join(validation_errors))
        self.validation_errors = validation_errors


class Document(NamedTuple):
    """One document of a file: its content, and where in the file each part of it stands."""

    file: str
    content: dict[str, Any]
    node: yaml.Node

    @property
    def is_job(self) -> bool:
        """Whether it is meant to be a FineTuneJob; other kinds are somebody else's, unless nothing says what it is."""
        version = str(self.content.get("apiVersion", ""))
        return self.content.get("kind", KIND) == KIND or version.startswith(f"{GROUP}/")

    def place(self, loc: tuple[int | str, ...]) -> str:
        """FILE:LINE of a field, or of the nearest part around it that is there."""
        node, line = self.node, self.node.start_mark.line
        for part in loc:
            entry = _entry(node, part)
            if entry is None:
                break
            key, node = entry
            line = key.start_mark.line
        return f"{self.file}:{line + 1}"


class LoadedJob(NamedTuple):
    """A FineTuneJob that obeys the schema, and the document it stood in."""

    job: FineTuneJob
    document: Document


class _Loader(yaml.SafeLoader):
    """Reads what the API server reads: no dates, numbers such as 1e-4, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key = None if key_node.tag == MERGE else self.construct_object(key_node, deep=True)
            if key is None or not isinstance(key, Hashable):
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                raise DocumentError(f"{self.name}:{line}: {key} is given twice (first in line {lines[key]}); remove one")
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(file: str) -> list[Document]:
    """All documents of a YAML file, or of standard input for "-"; raises DocumentError."""
    name, text = ("standard input", sys.stdin.read()) if file == STANDARD_INPUT else (file, _text(file))
    try:
        return _parse(name, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        raise DocumentError(f"{place}: is not YAML: {error.problem or error.context}; correct it") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"{name}: is not YAML: {' '.join(str(error).split())}; correct it") from None


def _parse(name: str, text: str) -> list[Document]:
    loader = _Loader(text)
    loader.name = name
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                documents.append(_document(name, node, loader))
    finally:
        loader.dispose()
    return documents


def jobs(file: str) -> list[LoadedJob]:
    """The FineTuneJobs of a file; raises DocumentError with every mistake in any of them, or if there is none."""
    documents = [document for document in load(file) if document.is_job]
    if not documents:
        raise DocumentError(f"{'standard input' if file == STANDARD_INPUT else file}: holds no {KIND}; add one")
    found: list[LoadedJob] = []
    validation_errors: list[str] = []
    for document in documents:
        try:
            found.append(LoadedJob(FineTuneJob.model_validate(document.content), document))
        except ValidationError as error:
            places = [document.place(item["loc"]) for item in error.errors(include_url=False)]
            validation_errors += [f"{place}: {sentence}" for place, sentence in zip(places, explain(error), strict=True)]
    if validation_errors:
        raise DocumentError(*validation_errors)
    return found


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DocumentError(f"{file}: is no text in UTF-8; is it the right file?") from None


def _document(name: str, node: yaml.Node, loader: _Loader) -> Document:
    if not isinstance(node, yaml.MappingNode):
        raise DocumentError(f"{name}:{node.start_mark.line + 1}: is no mapping; a document begins with apiVersion: and kind:")
    content = loader.construct_document(node)
    return Document(name, content, node)


def _entry(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Key and value of a mapping's field or a list's item."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
