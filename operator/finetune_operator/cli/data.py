"""`finetune data`: shows what a job would train on."""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune_operator import local
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import CACHE, YAML_FILE_HELP, CommandError, Subparsers, add_command

DEFAULT_SAMPLE = 2000
DEFAULT_ROWS = 3
MAX_ROWS = 50


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "data", execute, "Show what a job would train on, without training.")
    parser.add_argument("file", metavar="FILE", help=YAML_FILE_HELP)
    parser.add_argument(
        "--rows", type=_rows, default=DEFAULT_ROWS, metavar="N",
        help=f"rows of each source to show, at most {MAX_ROWS} (default: %(default)s)",
    )  # fmt: skip
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--sample", type=_positive, default=DEFAULT_SAMPLE, metavar="N",
        help="rows of each source to read (default: %(default)s)",
    )  # fmt: skip
    amount.add_argument("--all", action="store_true", help="read all rows, as a run does")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: %(default)s")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page without external resources")


def execute(options: argparse.Namespace) -> int:
    """Print the preview of the job's data; returns the exit code that a run would have."""
    loaded = yaml_loader.load_job(options.file)
    arguments = [f"--rows={options.rows}", f"--sample={options.sample}", f"--output={options.output}"]
    if options.all:
        arguments.append("--all")
    if options.html:
        arguments.append(f"--html={options.html}")
    try:
        return local.preview_data(loaded.job, Path.cwd(), arguments, CACHE)
    except local.LocalRunError as error:
        raise CommandError(str(error)) from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _rows(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MAX_ROWS:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_ROWS}")
    return number
