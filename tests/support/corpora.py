"""Real data that every machine has: Python's standard library, cut into rows for each kind of task."""

from __future__ import annotations

import ast
import base64
import functools
import io
import keyword
import re
import sysconfig
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from PIL import Image

LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ("asyncio", "email", "unittest", "xml")


@functools.cache
def functions(package: str) -> list[tuple[str, str]]:
    """(name, source) of the functions and methods of a package, of 80 to 600 characters each."""
    found = []
    for file in sorted((LIBRARY / package).rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        lines = source.encode().split(b"\n")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = _segment(lines, node)
                if 80 <= len(text) <= 600:
                    found.append((node.name, text))
    return found


def _segment(lines: list[bytes], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    # As ast.get_source_segment, which divides the whole file into lines each time.
    assert node.end_lineno
    own = lines[node.lineno - 1 : node.end_lineno]
    own[-1] = own[-1][: node.end_col_offset]
    own[0] = own[0][node.col_offset :]
    return b"\n".join(own).decode()


def by_package(most: int = 150) -> list[dict[str, Any]]:
    """Functions labelled by the package they stand in, at most so many of each."""
    return [{"text": text, "label": package} for package in PACKAGES for _, text in functions(package)[:most]]


def texts(most: int = 150) -> list[dict[str, Any]]:
    """The same without labels."""
    return [{"text": row["text"]} for row in by_package(most)]


def spelt_out() -> list[dict[str, Any]]:
    """Names of functions, and the words that they are made of."""
    packages = (*PACKAGES, "concurrent", "http", "importlib", "logging", "multiprocessing")
    names = sorted({name.strip("_") for package in packages for name, _ in functions(package)})
    words = {name: re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name) for name in names}
    return [{"text": name, "target": " ".join(parts).lower()} for name, parts in words.items() if len(parts) > 1]


def by_habit(most: int = 150) -> list[dict[str, Any]]:
    """Functions with all the habits they have: whether they return, raise, or loop."""
    habits = {"returns": "return ", "raises": "raise ", "loops": "for "}
    return [
        {"text": row["text"], "label": [name for name, word in habits.items() if word in row["text"]]} for row in texts(most)
    ]


def by_indentation(most: int = 150) -> list[dict[str, Any]]:
    """Functions and the share of their characters that are blanks, times ten."""
    return [{"text": row["text"], "label": 10 * row["text"].count(" ") / len(row["text"])} for row in texts(most)]


def pairs(most: int = 150) -> list[dict[str, Any]]:
    """The words of a function's name, and what the function does."""
    found = [pair for package in PACKAGES for pair in functions(package)[:most]]
    return [{"text": name.replace("_", " ").strip(), "text_pair": text} for name, text in found]


def tagged(most: int = 100) -> list[dict[str, Any]]:
    """Functions as lists of words, tagged with what a reader sees: keywords, what is defined, and what is called."""
    return [_tagged(row["text"]) for row in texts(most)]


def _tagged(source: str) -> dict[str, Any]:
    kinds = (tokenize.NAME, tokenize.OP, tokenize.NUMBER)
    words = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type in kinds]
    tags = ["B-KEYWORD" if keyword.iskeyword(word) else "O" for word in words]
    for at, word in enumerate(words):
        if word in ("def", "class"):
            tags[at + 1] = "B-DEFINED"
        elif word == "(" and at and tags[at - 1] == "O" and words[at - 1].isidentifier():
            begin = at - 1
            while begin > 1 and words[begin - 1] == "." and tags[begin - 2] == "O" and words[begin - 2].isidentifier():
                begin -= 2
            tags[begin:at] = ["B-CALLED", *["I-CALLED"] * (at - begin - 1)]
    return {"tokens": words, "tags": tags}


QUESTIONS = {
    "Whose method is it?": r"\b(self|cls)\b",
    "Which constant does it name?": r"\b(None|True|False)\b",
    "Which error does it name?": r"\b([A-Z]\w+Error)\b",
}


def asked(most: int = 100) -> list[dict[str, Any]]:
    """Functions, each with one of the questions about it, which some do not answer."""
    rows = []
    for index, row in enumerate(texts(most)):
        question, pattern = list(QUESTIONS.items())[index % len(QUESTIONS)]
        found = re.search(pattern, row["text"])
        answers = {"text": [found[1]], "answer_start": [found.start(1)]} if found else {"text": [], "answer_start": []}
        rows.append({"question": question, "context": row["text"], "answers": answers})
    return rows


def numbered(most: int = 150) -> list[dict[str, Any]]:
    """How functions begin: four lines, each of which says which it is."""
    ordinals = ("first", "second", "third", "last")
    of_functions = ([line.strip()[:16] for line in row["text"].splitlines() if line.strip()] for row in texts(most))
    return [
        {"text": "\n".join(f"{ordinal} {line}" for ordinal, line in zip(ordinals, lines, strict=False))}
        for lines in of_functions if len(lines) >= len(ordinals)
    ]  # fmt: skip


@functools.cache
def digits(most: int = 1797) -> list[dict[str, Any]]:
    """Handwritten digits of 8 x 8 pixels, as PNG in base64, and what they are."""
    found = sklearn.datasets.load_digits()
    images = [Image.fromarray((image * 15.9).astype(np.uint8)) for image in found.images[:most]]
    return [
        {"image": base64.b64encode(png(image)).decode(), "label": int(label)}
        for image, label in zip(images, found.target, strict=False)
    ]


def images(most: int = 1797) -> list[dict[str, Any]]:
    """The same without what they are."""
    return [{"image": row["image"]} for row in digits(most)]


def png(image: Image.Image) -> bytes:
    """The image as a file."""
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def questions(most: int = 150) -> list[tuple[str, str]]:
    """Whether a function may be called from elsewhere, and the answer, which its name gives away; each function once."""
    names = {f"{package}: {name}": name for package in PACKAGES for name, _ in functions(package)[:most]}
    return [(f"May I call {called}?", _manners(name)) for called, name in names.items()]


def conversations(most: int = 150) -> list[dict[str, Any]]:
    """The questions asked and answered, after a message of the system."""
    return [
        {
            "messages": [
                {"role": "system", "content": "You know Python."},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in questions(most)
    ]


def preferences(most: int = 150) -> list[dict[str, Any]]:
    """The questions with the answer that is short, and the one that says why."""
    return [
        {"prompt": f"{question}\n", "chosen": answer.partition(" ")[0], "rejected": answer}
        for question, answer in questions(most)
    ]


def _manners(name: str) -> str:
    if name.startswith("__"):
        return "Python itself calls it."
    return "No, it is private." if name.startswith("_") else "Yes, it is public."
