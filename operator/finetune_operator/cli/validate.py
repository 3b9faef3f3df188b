"""`finetune validate`: checks FineTuneJobs before anything runs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from finetune_operator import local
from finetune_operator.api import FineTuneJob
from finetune_operator.api.transition_rules import transition_errors
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.command import CACHE, PROFILES_HELP, YAML_FILE_HELP, Subparsers, add_command, load_profiles
from finetune_operator.cli.yaml_loader import DocumentError, LoadedJob
from finetune_operator.profiles import ProfileError, Profiles


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = add_command(subparsers, "validate", execute, "Report every error in the FineTuneJobs of YAML files.")
    parser.add_argument("files", metavar="FILE", nargs="+", help=YAML_FILE_HELP)
    parser.add_argument(
        "--previous",
        metavar="FILE",
        help="also check that the jobs of this file may change to the new ones; - reads kubectl get ftj NAME -o yaml",
    )
    parser.add_argument("--profiles", metavar="FILE", help=f"{PROFILES_HELP}; also checks their limits")
    parser.add_argument(
        "--local", action="store_true", help="also check that this machine can read the data and write the results"
    )
    parser.add_argument(
        "--data", action="store_true", help="also prepare all data as a run does, and report what its checks find"
    )


def execute(options: argparse.Namespace) -> int:
    """Print the valid jobs of each file; raises DocumentError with the errors of all files."""
    errors: list[str] = []
    profiles = load_profiles(options.profiles)
    previous = _previous_jobs(options.previous)
    for file in options.files:
        try:
            jobs = yaml_loader.load_jobs(file)
        except DocumentError as error:
            errors += error.validation_errors
            continue
        file_errors: list[str] = []
        for loaded in jobs:
            file_errors += (
                _change_errors(loaded, previous) + _profile_errors(loaded, profiles) + _machine_errors(loaded, options)
            )
        errors += file_errors
        if not file_errors:
            print(f"{file}: {', '.join(loaded.job.metadata.name for loaded in jobs)}: valid")
    if errors:
        raise DocumentError(*errors)
    return 0


def _previous_jobs(file: str | None) -> dict[str, FineTuneJob]:
    """The jobs of a file by name."""
    if file is None:
        return {}
    return {loaded.job.metadata.name: loaded.job for loaded in yaml_loader.load_jobs(file, is_stored=True)}


def _change_errors(loaded: LoadedJob, previous: dict[str, FineTuneJob]) -> list[str]:
    """The changes since the previous document that the API server would refuse."""
    old = previous.get(loaded.job.metadata.name)
    errors = transition_errors(old, loaded.job) if old is not None else []
    return [_at_line(loaded, error) for error in errors]


def _profile_errors(loaded: LoadedJob, profiles: Profiles | None) -> list[str]:
    """What the profile of the job refuses."""
    try:
        if profiles is not None:
            profiles.apply(loaded.job)
    except ProfileError as error:
        return [_at_line(loaded, sentence) for sentence in error.errors]
    return []


def _at_line(loaded: LoadedJob, sentence: str) -> str:
    """A sentence that begins with a field, with its file and line."""
    parts = re.findall(r"[^.\[\]]+", sentence.partition(": ")[0])
    field = tuple(int(part) if part.isdecimal() else part for part in parts)
    return f"{loaded.document.file_and_line(field)}: {sentence}"


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
