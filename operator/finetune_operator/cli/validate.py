"""`finetune validate`: checks FineTuneJobs before anything runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune_operator import local
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import YAML_FILE_HELP, Subparsers, add_command
from finetune_operator.cli.yaml_loader import DocumentError, LoadedJob


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "validate", execute, "Report every error in the FineTuneJobs of YAML files.")
    parser.add_argument("files", metavar="FILE", nargs="+", help=YAML_FILE_HELP)
    parser.add_argument(
        "--local", action="store_true", help="also check that this machine can read the data and write the results"
    )


def execute(options: argparse.Namespace) -> int:
    """Print the valid jobs of each file; raises DocumentError with the errors of all files."""
    errors: list[str] = []
    for file in options.files:
        try:
            jobs = yaml_loader.load_jobs(file)
        except DocumentError as error:
            errors += error.validation_errors
            continue
        local_errors: list[str] = []
        if options.local:
            for loaded in jobs:
                local_errors += _local_errors(loaded)
        errors += local_errors
        if not local_errors:
            print(f"{file}: {', '.join(loaded.job.metadata.name for loaded in jobs)}: valid")
    if errors:
        raise DocumentError(*errors)
    return 0


def _local_errors(loaded: LoadedJob) -> list[str]:
    """Missing files, or else the first error of the trainer's own check of data and storage."""
    if missing := local.missing_files(loaded.job, Path.cwd()):
        return [f"{loaded.document.file_and_line(location)}: {sentence}" for location, sentence in missing]
    error = local.preflight(loaded.job, Path.cwd())
    return [f"{loaded.job.metadata.name}: {error}"] if error else []
