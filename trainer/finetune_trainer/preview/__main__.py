"""Shows what a run would train on: `python -m finetune_trainer.preview train.json --cache-dir DIRECTORY`.

It reads, checks, encodes and collates the data as a run does, and needs the model's tokenizer, but neither its weights nor the
checkpoint storage. An error is printed as one sentence, and its exit code is that of a run (`protocol.outcome.EXIT_POLICIES`).
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from finetune_trainer.config import TrainSpec
from finetune_trainer.protocol.outcome import EXIT_POLICIES, TrainerError
from finetune_trainer.storage.base import Credentials

if TYPE_CHECKING:
    from finetune_trainer.preview.report import DataPreview

PIPE_WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Print the preview of one document and return the exit code."""
    arguments = _parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    spec = TrainSpec.model_validate_json(arguments.document.read_bytes())
    # After the arguments, because importing torch and transformers takes seconds.
    from finetune_trainer.preview.page import render_page
    from finetune_trainer.preview.prepared import preview_of

    sample = None if arguments.all else arguments.sample
    try:
        preview = preview_of(spec, arguments.cache_dir, Credentials(arguments.credentials_dir), sample, arguments.rows)
        if arguments.html:
            arguments.html.write_text(render_page(preview, arguments.name), encoding="utf-8")
    except TrainerError as error:
        print(error, file=sys.stderr)
        return EXIT_POLICIES[error.reason].exit_code
    except OSError as error:
        print(f"--html: {arguments.html} cannot be written ({error.strerror}): name another file", file=sys.stderr)
        return 1
    if arguments.output == "json":
        print(preview.model_dump_json(by_alias=True, exclude_none=True, indent=2))
    elif arguments.output == "findings":
        for finding in preview.findings:
            print(finding.sentence)
        for warning in preview.warnings:
            print(warning)
    else:
        _print(preview, arguments.name)
        if arguments.html:
            print(f"\nthe page is at {arguments.html}; it contains rows of the data")
    return 0


def _print(preview: DataPreview, name: str) -> None:
    from finetune_trainer.preview.terminal import print_preview

    if sys.stdout.isatty():
        print_preview(preview, name, Console())
        return
    text = io.StringIO()
    print_preview(preview, name, Console(file=text, width=PIPE_WIDTH))
    for line in text.getvalue().splitlines():
        print(line.rstrip())


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.preview", description="Show what a run would train on.")
    parser.add_argument("document", type=Path, help="the TrainSpec as JSON")
    parser.add_argument("--name", default="job")
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--credentials-dir", type=Path)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--output", choices=("text", "json", "findings"), default="text")
    parser.add_argument("--html", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
