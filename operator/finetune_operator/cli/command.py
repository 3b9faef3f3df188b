"""What the commands share: how they register with argparse, and the error that ends one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from finetune_operator.profiles import ProfileError, Profiles

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
YAML_FILE_HELP = "YAML file; - reads standard input"
CACHE = Path(".finetune/cache")
"""Downloads and prepared data, shared with runs whose state is in the default directory."""


class CommandError(Exception):
    """The command cannot be carried out; the message has one sentence per line."""


PROFILES_HELP = "YAML file with the profiles of the cluster, as in the chart's value profiles"


def load_profiles(file: str | None) -> Profiles | None:
    """The profiles of a file, if one is given; raises CommandError."""
    if file is None:
        return None
    try:
        return Profiles.read(file)
    except (OSError, ProfileError) as error:
        raise CommandError(f"{file}: {error}") from None


def add_command(
    subparsers: Subparsers, name: str, execute: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """Add the parser of one command; `execute` takes the parsed options and returns the exit code."""
    parser = subparsers.add_parser(name, help=summary, description=summary)
    parser.set_defaults(execute=execute)
    return parser
