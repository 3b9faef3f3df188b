"""The command line: `finetune`, and as a plugin `kubectl finetune`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from finetune_operator.api import GROUP, PLURAL, FineTuneJob, JobStatus
from finetune_operator.cli import yaml_loader
from finetune_operator.cli.yaml_loader import DocumentError, LoadedJob

MISTAKE = 2  # the exit code for what the user has to correct, as argparse has it
JOB_LABEL = f"{GROUP}/job"


class CommandError(Exception):
    """The command cannot be done; one sentence a line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        return command(given)
    except (DocumentError, CommandError) as error:
        print(error, file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:  # `finetune render | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    kubectl = Path(sys.argv[0]).name.startswith("kubectl-")
    parser = argparse.ArgumentParser(
        "kubectl finetune" if kubectl else "finetune", description="Fine-tune and pre-train models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], meaning: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.set_defaults(command=command)
        return added

    run = add("run", _run, "Run a job on this machine, without Kubernetes; Ctrl-C stops it with a checkpoint.")
    run.add_argument("file", metavar="FILE", help="YAML with one FineTuneJob; - for standard input")
    run.add_argument("--state", type=Path, default=Path(".finetune"), help="where logs and scratch files go (.finetune)")
    run.add_argument("--rank-module", help=argparse.SUPPRESS)
    predict = add("predict", _predict, "Try an exported model on this machine.")
    predict.add_argument("model", metavar="MODEL", help="its folder, or its address: file://, s3:// or hf://")
    predict.add_argument(
        "--input", action="append", default=[], metavar="TEXT|FILE|-",
        help='a text, an image, JSON ({"text": …, "text_pair": …}, {"question": …, "context": …} or the messages of a chat), '
        "or where such are, one a line; standard input by default",
    )  # fmt: skip
    predict.add_argument("--task", help="transformers' name of what to ask for; what the model was trained for by default")
    predict.add_argument("--json", action="store_true", help="print everything, one JSON object a line")
    predict.add_argument("--max-new-tokens", type=int, default=64, help="where text is generated (64)")
    validate = add("validate", _validate, "Say every mistake in the FineTuneJobs of files.")
    validate.add_argument("files", metavar="FILE", nargs="+", help="YAML; - for standard input")
    validate.add_argument(
        "--local", action="store_true", help="also try from this machine whether the data can be read and results be written"
    )
    render = add("render", _render, "Print the Kubernetes objects that the operator makes of a job.")
    render.add_argument("file", metavar="FILE", help="YAML; - for standard input")
    logs = add("logs", _logs, "Print the logs of a job's pods.")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they grow")
    logs.add_argument("--tail", type=int, default=-1, metavar="LINES", help="only the last lines of each pod")
    status = add("status", _status, "Say how a job stands.")
    for wrapper in (logs, status):
        wrapper.add_argument("job", metavar="JOB")
        wrapper.add_argument("-n", "--namespace", help="kubectl's current one by default")
        wrapper.add_argument("--context", help="kubectl's current one by default")
    add("version", _version, "Print the version.")
    return parser


def _run(given: argparse.Namespace) -> int:
    from finetune_operator import local

    jobs = yaml_loader.jobs(given.file)
    if len(jobs) > 1:
        names = ", ".join(job.job.metadata.name for job in jobs)
        raise CommandError(f"{given.file} holds {len(jobs)} FineTuneJobs ({names}): put the one to run in a file of its own")
    again = f"finetune run {shlex.quote(given.file)}"
    if given.state != Path(".finetune"):
        again += f" --state {shlex.quote(str(given.state))}"
    try:
        return local.run(jobs[0].job, given.state, Console(), again, given.rank_module)
    except local.RunRefused as error:
        raise CommandError(str(error)) from None


def _predict(given: argparse.Namespace) -> int:
    from finetune_operator import local

    options = [f"--task={given.task}"] * bool(given.task) + ["--json"] * given.json
    options.append(f"--max-new-tokens={given.max_new_tokens}")
    try:
        return local.predict(given.model, given.input, options, Path(".finetune/cache"))
    except local.RunRefused as error:
        raise CommandError(str(error)) from None


def _validate(given: argparse.Namespace) -> int:
    validation_errors: list[str] = []
    for file in given.files:
        try:
            jobs = yaml_loader.jobs(file)
        except DocumentError as error:
            validation_errors += error.validation_errors
            continue
        found = [mistake for job in jobs for mistake in _refused_here(job)] if given.local else []
        validation_errors += found
        if not found:
            print(f"{file}: {', '.join(job.job.metadata.name for job in jobs)}: valid")
    if validation_errors:
        raise DocumentError(*validation_errors)
    return 0


def _refused_here(job: LoadedJob) -> list[str]:
    from finetune_operator.local import missing_files, preflight

    if missing := missing_files(job.job, Path.cwd()):
        return [f"{job.document.place(location)}: {sentence}" for location, sentence in missing]
    refused = preflight(job.job, Path.cwd())
    return [f"{job.job.metadata.name}: {refused}"] if refused else []


def _render(given: argparse.Namespace) -> int:
    from finetune_operator import builders

    objects = [rendered for job in yaml_loader.jobs(given.file) for rendered in builders.render(job.job)]
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False, width=120)
    return 0


def _logs(given: argparse.Namespace) -> int:
    words = ["logs", f"--selector={JOB_LABEL}={given.job}", "--prefix", "--max-log-requests=64", f"--tail={given.tail}"]
    if given.follow:
        words.append("--follow")
    return _kubectl(given, words).returncode


def _status(given: argparse.Namespace) -> int:
    answer = _kubectl(given, ["get", f"{PLURAL}.{GROUP}", given.job, "--output=json"], capture=True)
    if answer.returncode:
        raise CommandError(answer.stderr.strip().rpartition("\n")[2])
    content: dict[str, Any] = json.loads(answer.stdout)
    try:
        job = FineTuneJob.model_validate(content)
    except ValidationError:
        raise CommandError(f"{given.job} is of another version of the operator: use the finetune of that version") from None
    console = Console()
    for line in _summary(job.status):
        console.print(line, highlight=False, markup=False)
    table = Table("condition", "status", "reason", "since", "message", box=None, padding=(0, 2, 0, 0))
    for condition in job.status.conditions:
        table.add_row(condition.type, condition.status, condition.reason, condition.last_transition_time, condition.message)
    console.print(table, markup=False)
    return 0


def _summary(status: JobStatus) -> list[str]:
    words: list[tuple[str, object]] = [("phase", status.phase), ("ready", status.workers.summary)]
    if status.progress is not None:
        progress = status.progress
        words.append(("step", f"{progress.step}/{progress.total_steps} ({progress.percent}%)"))
        words += [("loss", progress.loss), ("eval loss", progress.eval_loss), ("remaining", status.eta)]
    words += [
        ("checkpoint", status.checkpoint and f"step {status.checkpoint.step}, {status.checkpoint.time}"),
        ("model", status.model),
        ("restarts", status.restarts.total or None),
        ("failure", status.failure and f"{status.failure.reason}: {status.failure.message}"),
    ]
    return [f"{name:<12}{value}" for name, value in words if value is not None]


def _version(given: argparse.Namespace) -> int:
    print(importlib.metadata.version("finetune-operator"))
    return 0


def _kubectl(given: argparse.Namespace, words: list[str], capture: bool = False) -> subprocess.CompletedProcess[str]:
    options = [f"--{name}={value}" for name in ("namespace", "context") if (value := getattr(given, name)) is not None]
    try:
        return subprocess.run(["kubectl", *options, *words], capture_output=capture, text=True, check=False)
    except FileNotFoundError:
        raise CommandError("kubectl is not installed, or not on PATH: install it to ask a cluster") from None


if __name__ == "__main__":
    sys.exit(main())
