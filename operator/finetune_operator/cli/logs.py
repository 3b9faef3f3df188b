"""`finetune logs`: prints the logs of a job's pods."""

from __future__ import annotations

import argparse

from finetune_operator.cli.command import Subparsers, add_command
from finetune_operator.cli.kubectl import add_kubectl_arguments, run_kubectl
from finetune_operator.names import JOB_LABEL


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "logs", execute, "Print the logs of a job's pods.")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new lines")
    parser.add_argument("--tail", type=int, default=-1, metavar="LINES", help="print only the last lines of each pod")
    add_kubectl_arguments(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the logs of all pods, each line with the name of its pod."""
    arguments = [
        "logs", f"--selector={JOB_LABEL}={options.job}", "--prefix", "--max-log-requests=64", f"--tail={options.tail}",
    ]  # fmt: skip
    if options.follow:
        arguments.append("--follow")
    return run_kubectl(options, arguments).returncode
