"""`finetune predict`: runs an exported model on this machine."""

from __future__ import annotations

import argparse

from finetune_operator import local
from finetune_operator.cli.command import CACHE, CommandError, Subparsers, add_command


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "predict", execute, "Run an exported model on this machine.")
    parser.add_argument("model", metavar="MODEL", help="directory of the model, or its URI: file://, s3:// or hf://")
    parser.add_argument(
        "--input", action="append", default=[], metavar="TEXT|FILE|-",
        help='a text, an image file, JSON ({"text": …, "text_pair": …}, {"question": …, "context": …} or the messages of a '
        "chat), or a file with one of these per line; may be repeated; default: standard input",
    )  # fmt: skip
    parser.add_argument("--task", help="name of the transformers pipeline (default: the task the model was trained for)")
    parser.add_argument("--json", action="store_true", help="print the full output, one JSON object per line")
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, help="limit for models that generate text (default: %(default)s)"
    )


def execute(options: argparse.Namespace) -> int:
    """Print one prediction per input."""
    arguments = [f"--max-new-tokens={options.max_new_tokens}"]
    if options.task:
        arguments.append(f"--task={options.task}")
    if options.json:
        arguments.append("--json")
    try:
        return local.predict(options.model, options.input, arguments, CACHE)
    except local.LocalRunError as error:
        raise CommandError(str(error)) from None
