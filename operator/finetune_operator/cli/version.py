"""`finetune version`: prints the installed version."""

from __future__ import annotations

import argparse
import importlib.metadata

from finetune_operator.cli.command import Subparsers, add_command


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    add_command(subparsers, "version", execute, "Print the version.")


def execute(options: argparse.Namespace) -> int:
    """Print the version of the installed package."""
    print(importlib.metadata.version("finetune-operator"))
    return 0
