"""Runs kubectl for the commands that query a cluster."""

from __future__ import annotations

import argparse
import subprocess

from finetune_operator.cli.command import CommandError


def add_kubectl_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the job's name and kubectl's choice of namespace and cluster."""
    parser.add_argument("job", metavar="JOB", help="name of the FineTuneJob")
    parser.add_argument("-n", "--namespace", help="default: kubectl's current namespace")
    parser.add_argument("--context", help="default: kubectl's current context")


def run_kubectl(
    options: argparse.Namespace, arguments: list[str], *, capture_output: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run kubectl in the namespace and context of `options`; raises CommandError if it is not installed."""
    command = ["kubectl"]
    if options.namespace is not None:
        command.append(f"--namespace={options.namespace}")
    if options.context is not None:
        command.append(f"--context={options.context}")
    try:
        return subprocess.run([*command, *arguments], capture_output=capture_output, text=True, check=False)
    except FileNotFoundError:
        raise CommandError("kubectl is not installed or not on PATH: install it to query a cluster") from None
