"""Real data that is on every machine: functions of Python's standard library, and digits of scikit-learn, for each task."""

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
    pairs = []
    for file in sorted((LIBRARY / package).rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        lines = source.encode().split(b"\n")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = _segment(lines, node)
                if 80 <= len(text) <= 600:
                    pairs.append((node.name, text))
    return pairs


def _segment(lines: list[bytes], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    # Like ast.get_source_segment, which splits the whole file into lines in every call.
    assert node.end_lineno
    segment = lines[node.lineno - 1 : node.end_lineno]
    segment[-1] = segment[-1][: node.end_col_offset]
    segment[0] = segment[0][node.col_offset :]
    return b"\n".join(segment).decode()


def by_package(most: int = 150) -> list[dict[str, Any]]:
    """Functions labeled with their package, at most `most` of each."""
    return [{"text": text, "label": package} for package in PACKAGES for _, text in functions(package)[:most]]


def texts(most: int = 150) -> list[dict[str, Any]]:
    """Functions without labels."""
    return [{"text": row["text"]} for row in by_package(most)]


def spelt_out() -> list[dict[str, Any]]:
    """Names of functions, and their words."""
    packages = (*PACKAGES, "concurrent", "http", "importlib", "logging", "multiprocessing")
    names = sorted({name.strip("_") for package in packages for name, _ in functions(package)})
    words = {name: re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name) for name in names}
    return [{"text": name, "target": " ".join(parts).lower()} for name, parts in words.items() if len(parts) > 1]


def by_habit(most: int = 150) -> list[dict[str, Any]]:
    """Functions with several labels: whether they return, raise or loop."""
    habits = {"returns": "return ", "raises": "raise ", "loops": "for "}
    return [
        {"text": row["text"], "label": [name for name, word in habits.items() if word in row["text"]]} for row in texts(most)
    ]


def by_indentation(most: int = 150) -> list[dict[str, Any]]:
    """Functions with a number: the share of spaces among their characters, times ten."""
    return [{"text": row["text"], "label": 10 * row["text"].count(" ") / len(row["text"])} for row in texts(most)]


def pairs(most: int = 150) -> list[dict[str, Any]]:
    """The words of a function's name, paired with its source."""
    named = [pair for package in PACKAGES for pair in functions(package)[:most]]
    return [{"text": name.replace("_", " ").strip(), "text_pair": text} for name, text in named]


def tagged(most: int = 100) -> list[dict[str, Any]]:
    """Functions as lists of words, with tags for keywords, definitions and calls."""
    return [_tagged(row["text"]) for row in texts(most)]


def _tagged(source: str) -> dict[str, Any]:
    kinds = (tokenize.NAME, tokenize.OP, tokenize.NUMBER)
    words = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type in kinds]
    tags = ["B-KEYWORD" if keyword.iskeyword(word) else "O" for word in words]
    for index, word in enumerate(words):
        if word in ("def", "class"):
            tags[index + 1] = "B-DEFINED"
        elif word == "(" and index and tags[index - 1] == "O" and words[index - 1].isidentifier():
            begin = index - 1
            while begin > 1 and words[begin - 1] == "." and tags[begin - 2] == "O" and words[begin - 2].isidentifier():
                begin -= 2
            tags[begin:index] = ["B-CALLED", *["I-CALLED"] * (index - begin - 1)]
    return {"tokens": words, "tags": tags}


QUESTIONS = {
    "Whose method is it?": r"\b(self|cls)\b",
    "Which constant does it name?": r"\b(None|True|False)\b",
    "Which error does it name?": r"\b([A-Z]\w+Error)\b",
}


def asked(most: int = 100) -> list[dict[str, Any]]:
    """Functions, each with one of the questions; some functions do not answer theirs."""
    rows = []
    for index, row in enumerate(texts(most)):
        question, pattern = list(QUESTIONS.items())[index % len(QUESTIONS)]
        match = re.search(pattern, row["text"])
        answers = {"text": [match[1]], "answer_start": [match.start(1)]} if match else {"text": [], "answer_start": []}
        rows.append({"question": question, "context": row["text"], "answers": answers})
    return rows


def numbered(most: int = 150) -> list[dict[str, Any]]:
    """The first lines of functions, up to four, each with its number in words."""
    ordinals = ("first", "second", "third", "last")
    of_functions = ([line.strip()[:16] for line in row["text"].splitlines() if line.strip()] for row in texts(most))
    return [
        {"text": "\n".join(f"{ordinal} {line}" for ordinal, line in zip(ordinals, lines, strict=False))}
        for lines in of_functions if len(lines) >= len(ordinals)
    ]  # fmt: skip


@functools.cache
def digits(most: int = 1797) -> list[dict[str, Any]]:
    """Handwritten digits of 8 x 8 pixels, as PNG in base64, with their labels."""
    dataset = sklearn.datasets.load_digits()
    images = [Image.fromarray((image * 15.9).astype(np.uint8)) for image in dataset.images[:most]]
    return [
        {"image": base64.b64encode(png(image)).decode(), "label": int(label)}
        for image, label in zip(images, dataset.target, strict=False)
    ]


def images(most: int = 1797) -> list[dict[str, Any]]:
    """Handwritten digits without labels."""
    return [{"image": row["image"]} for row in digits(most)]


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def questions(most: int = 150) -> list[tuple[str, str]]:
    """Questions whether a function is public, with the answer, which follows from its name; each function once."""
    names = {f"{package}: {name}": name for package in PACKAGES for name, _ in functions(package)[:most]}
    return [(f"May I call {called}?", _answer(name)) for called, name in names.items()]


def conversations(most: int = 150) -> list[dict[str, Any]]:
    """The questions and answers as conversations with a system message."""
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
    """The questions with a short answer, which is preferred, and one with its reason."""
    return [
        {"prompt": f"{question}\n", "chosen": answer.partition(" ")[0], "rejected": answer}
        for question, answer in questions(most)
    ]


def _answer(name: str) -> str:
    if name.startswith("__"):
        return "Python itself calls it."
    return "No, it is private." if name.startswith("_") else "Yes, it is public."
