"""`finetune run`: runs a job on this machine, without Kubernetes."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from finetune_operator import local
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import CommandError, Subparsers, add_command

DEFAULT_STATE = Path(".finetune")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    summary = "Run a job on this machine, without Kubernetes. Ctrl-C stores a checkpoint and stops."
    parser = add_command(subparsers, "run", execute, summary)
    parser.add_argument("file", metavar="FILE", help="YAML file with one FineTuneJob; - reads standard input")
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIRECTORY",
        help="directory for logs and scratch files (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--rank-module", help=argparse.SUPPRESS)


def execute(options: argparse.Namespace) -> int:
    """Run the job until it ends; returns the exit code its pods would have."""
    loaded = yaml_loader.load_job(options.file)
    try:
        return local.run(loaded.job, options.state, Console(), resume_command(options), options.rank_module)
    except local.LocalRunError as error:
        raise CommandError(str(error)) from None


def resume_command(options: argparse.Namespace) -> str:
    """Return the command line that resumes this run."""
    command = f"finetune run {shlex.quote(options.file)}"
    if options.state != DEFAULT_STATE:
        command += f" --state {shlex.quote(str(options.state))}"
    return command
