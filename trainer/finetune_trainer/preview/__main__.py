"""Shows what a run would train on: `python -m finetune_trainer.preview train.json --cache-dir DIRECTORY`.

It reads, checks, encodes and collates the data as a run does, and needs the model's tokenizer, but neither its weights nor the
checkpoint storage. An error is printed as one sentence, and its exit code is that of a run (`protocol.outcome.EXIT_POLICIES`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from finetune_trainer.config import TrainSpec
from finetune_trainer.protocol.outcome import EXIT_POLICIES, TrainerError
from finetune_trainer.storage.base import Credentials

PIPE_WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Print the preview of one document and return the exit code."""
    arguments = _parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    spec = TrainSpec.model_validate_json(arguments.document.read_bytes())
    # After the arguments, because importing torch and transformers takes seconds.
    from finetune_trainer.preview.page import render_page
    from finetune_trainer.preview.prepared import preview_of
    from finetune_trainer.preview.terminal import print_preview

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
        console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
        print_preview(preview, arguments.name, console)
        if arguments.html:
            print(f"\nthe page is at {arguments.html}; it contains rows of the data")
    return 0


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
