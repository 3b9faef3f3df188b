"""Shows what a run would train on: `python -m finetune_trainer.preview train.json --cache-dir DIRECTORY`.

It reads, checks, encodes and collates the data as a run does, and needs the model's tokenizer, but neither its weights nor the
checkpoint storage. An error is printed as one sentence, and its exit code is that of a run (`protocol.outcome.EXIT_POLICIES`).
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from finetune_trainer.config import TrainSpec
from finetune_trainer.protocol.outcome import EXIT_POLICIES, ConfigurationError, TrainerError
from finetune_trainer.storage.base import Credentials

if TYPE_CHECKING:
    from finetune_trainer.preview.report import DataPreview

PIPE_WIDTH = 100
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Print the preview of one document and return the exit code."""
    arguments = _parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    try:
        preview = _build(arguments)
        if arguments.html:
            _write_page(preview, arguments.name, arguments.html)
        _print(preview, arguments)
        sys.stdout.flush()
    except TrainerError as error:
        print(error, file=sys.stderr)
        return EXIT_POLICIES[error.reason].exit_code
    except BrokenPipeError:  # the reader closed the pipe, as in `finetune data job.yaml | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _build(arguments: argparse.Namespace) -> DataPreview:
    spec = TrainSpec.model_validate_json(arguments.document.read_bytes())
    # After the document is validated, because importing torch and transformers takes seconds.
    from finetune_trainer.preview.prepared import preview_of

    sample = None if arguments.all else arguments.sample
    return preview_of(spec, arguments.cache_dir, Credentials(arguments.credentials_dir), sample, arguments.rows)


def _write_page(preview: DataPreview, name: str, file: Path) -> None:
    from finetune_trainer.preview.page import render_page

    try:
        file.write_text(render_page(preview, name), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--html: {file} cannot be written ({error.strerror}): name another file") from error


def _print(preview: DataPreview, arguments: argparse.Namespace) -> None:
    match arguments.output:
        case "json":
            print(preview.model_dump_json(by_alias=True, exclude_none=True, indent=2))
        case "findings":
            for sentence in (*(finding.sentence for finding in preview.findings), *preview.warnings):
                print(sentence)
        case _:
            _print_text(preview, arguments.name)
            if arguments.html:
                content = "it contains rows of the data" if preview.shown else "it contains no rows of the data"
                print(f"\nthe page is at {arguments.html}; {content}")


def _print_text(preview: DataPreview, name: str) -> None:
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
