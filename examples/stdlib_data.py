"""Make a real corpus out of what every machine has: the functions and classes of Python's standard library.

    python examples/stdlib_data.py OUT.jsonl [--megabytes 4]

One row for each top-level function or class: {"text": its source, "module": where it stands}. The rows come in an order
that depends on nothing but their text, so that every machine with the same Python makes the same file.
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
    """(module, source) of each top-level function and class below `library`, tests and installed packages left out."""
    for path in sorted(library.rglob("*.py")):
        module = path.relative_to(library)
        if {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"} & set(module.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (UnicodeDecodeError, SyntaxError):
            continue  # a handful of files are broken on purpose
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = ast.get_source_segment(source, node)
                if text:
                    yield str(module), text + "\n"


def main() -> None:
    """Write the corpus."""
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
