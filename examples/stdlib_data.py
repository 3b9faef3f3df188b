"""Writes a corpus of real text that needs no download: the functions and classes of Python's standard library.

    python examples/stdlib_data.py OUT.jsonl [--megabytes 4]

Each row is a top-level function or class: {"text": its source, "module": its file}. The order of the rows depends only on
their text, so that every machine with the same version of Python writes the same file.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def definitions(library: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, source) of each top-level function and class below `library`, without tests and installed packages."""
    for path in sorted(library.rglob("*.py")):
        module = path.relative_to(library)
        if {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"} & set(module.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (UnicodeDecodeError, SyntaxError):
            continue  # the library contains a few files with intended errors
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = ast.get_source_segment(source, node)
                if text:
                    yield str(module), text + "\n"


def main() -> None:
    """Write the corpus to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=4.0)
    arguments = parser.parse_args()
    rows = sorted(definitions(Path(sysconfig.get_path("stdlib"))), key=lambda row: hashlib.sha256(row[1].encode()).digest())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    size = count = 0
    with arguments.out.open("w", encoding="utf-8") as out:
        for module, text in rows:
            if size > arguments.megabytes * 1e6:
                break
            size += out.write(json.dumps({"text": text, "module": module}) + "\n")
            count += 1
    print(f"{arguments.out}: {count} definitions of Python's standard library, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
