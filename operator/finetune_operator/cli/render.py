"""`finetune render`: prints the Kubernetes objects of a job."""

from __future__ import annotations

import argparse
import sys

import yaml

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import PROFILES_HELP, YAML_FILE_HELP, CommandError, Subparsers, add_command, load_profiles
from finetune_operator.profiles import ProfileError, Profiles


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "render", execute, "Print the Kubernetes objects that the operator creates for a job.")
    parser.add_argument("file", metavar="FILE", help=YAML_FILE_HELP)
    parser.add_argument("--profiles", metavar="FILE", help=f"{PROFILES_HELP}; adds their defaults")


def execute(options: argparse.Namespace) -> int:
    """Print the objects of every job in the file as YAML."""
    profiles = load_profiles(options.profiles)
    objects = []
    for loaded in yaml_loader.load_jobs(options.file):
        objects += builders.render(_with_profile(loaded.job, profiles))
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False, width=120)
    return 0


def _with_profile(job: FineTuneJob, profiles: Profiles | None) -> FineTuneJob:
    try:
        return profiles.apply(job) if profiles is not None else job
    except ProfileError as error:
        raise CommandError("\n".join(error.errors)) from None
