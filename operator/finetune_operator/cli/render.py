"""`finetune render`: prints the Kubernetes objects of a job."""

from __future__ import annotations

import argparse
import sys

import yaml

from finetune_operator import builders
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import YAML_FILE_HELP, Subparsers, add_command


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "render", execute, "Print the Kubernetes objects that the operator creates for a job.")
    parser.add_argument("file", metavar="FILE", help=YAML_FILE_HELP)


def execute(options: argparse.Namespace) -> int:
    """Print the objects of every job in the file as YAML."""
    objects = []
    for loaded in yaml_loader.load_jobs(options.file):
        objects += builders.render(loaded.job)
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False, width=120)
    return 0
