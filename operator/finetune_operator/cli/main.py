"""Parses the command line and runs one command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.cli import data, logs, predict, render, run, status, validate, version
from finetune_operator.cli.command import CommandError
from finetune_operator.cli.yaml_loader import DocumentError

COMMANDS = (run, predict, data, validate, render, logs, status, version)  # in the order of --help
USAGE_ERROR = 2  # the exit code for errors the user has to correct, as in argparse
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        exit_code: int = options.execute(options)
    except (DocumentError, CommandError) as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # the reader closed the pipe, as in `finetune render | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return exit_code


def build_parser() -> argparse.ArgumentParser:
    """Build the parser with every command."""
    is_plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    name = "kubectl finetune" if is_plugin else "finetune"
    parser = argparse.ArgumentParser(name, description="Pre-train and fine-tune models.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
