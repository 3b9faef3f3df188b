"""`finetune validate`: checks FineTuneJobs before anything runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune_operator import local
from finetune_operator.api import FineTuneJob
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import CACHE, YAML_FILE_HELP, Subparsers, add_command
from finetune_operator.cli.yaml_loader import DocumentError, LoadedJob


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "validate", execute, "Report every error in the FineTuneJobs of YAML files.")
    parser.add_argument("files", metavar="FILE", nargs="+", help=YAML_FILE_HELP)
    parser.add_argument(
        "--local", action="store_true", help="also check that this machine can read the data and write the results"
    )
    parser.add_argument(
        "--data", action="store_true", help="also prepare all data as a run does, and report what its checks find"
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
        file_errors: list[str] = []
        for loaded in jobs:
            file_errors += _machine_errors(loaded, options)
        errors += file_errors
        if not file_errors:
            print(f"{file}: {', '.join(loaded.job.metadata.name for loaded in jobs)}: valid")
    if errors:
        raise DocumentError(*errors)
    return 0


def _machine_errors(loaded: LoadedJob, options: argparse.Namespace) -> list[str]:
    """The errors of the job on this machine: missing files, or else the first error of the trainer's own checks."""
    if not (options.local or options.data):
        return []
    if missing := local.missing_files(loaded.job, Path.cwd()):
        return [f"{loaded.document.file_and_line(location)}: {sentence}" for location, sentence in missing]
    name = loaded.job.metadata.name
    if options.local and (error := local.preflight(loaded.job, Path.cwd())):
        return [f"{name}: {error}"]
    return _data_errors(loaded.job) if options.data else []


def _data_errors(job: FineTuneJob) -> list[str]:
    """Prints the findings of the job's data; returns the error that would end a run."""
    try:
        check = local.check_data(job, Path.cwd(), CACHE)
    except local.LocalRunError as error:
        return [f"{job.metadata.name}: {error}"]
    for finding in check.findings:
        print(f"{job.metadata.name}: {finding}")
    return [f"{job.metadata.name}: {check.error}"] if check.error else []
