"""One rank of a run: `python -m finetune_trainer.training`, started by the agent of its node."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
import traceback
from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.config import TrainSpec, explain
from finetune_trainer.distributed.preemption import Interrupted, PreemptionSignal
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.environment import COMPLETES_ONCE
from finetune_trainer.protocol.events import Alive, Beat, Ended, EventSink, PipeEventSink
from finetune_trainer.protocol.full_volumes import classify_full_volume
from finetune_trainer.protocol.outcome import EXIT_POLICIES, UNEXPECTED_ERROR, ConfigurationError, Outcome, Reason, TrainerError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.launch_context import LaunchContext
from finetune_trainer.training.recall import recall_outcome

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run one rank, report its outcome to the agent and return its exit code."""
    arguments = _parse_arguments(argv)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s rank {arguments.rank} %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    if arguments.stack_file is not None:
        # The agent asks a rank that hangs for its stacks, which faulthandler writes even while native code runs.
        faulthandler.register(signal.SIGUSR1, file=arguments.stack_file.open("a"), all_threads=True)
    report = PipeEventSink(arguments.telemetry_fd)
    stop = PreemptionSignal()
    stop.install()
    with heartbeat.relayed_to(lambda: report(Beat())):
        outcome = _run(arguments, report, stop)
    stop.ignore()
    report(Ended(outcome=outcome))
    return outcome.exit_policy.exit_code


def _run(arguments: argparse.Namespace, report: EventSink, stop: PreemptionSignal) -> Outcome:
    try:
        report(Alive(activity="Starting"))
        spec, launch = _load_document(arguments.document), _launch_context(arguments)
        if outcome := recall_outcome(spec, launch):
            return outcome
        # After the document is validated, because importing torch takes seconds.
        import transformers

        from finetune_trainer.training import trainer

        transformers.utils.logging.disable_progress_bar()
        return trainer.run(spec, launch, report, stop)
    except BaseException as error:
        return _failure_outcome(error, arguments.rank)


def _failure_outcome(error: BaseException, rank: int) -> Outcome:
    reason, message = _classify_error(error)
    exit_policy = EXIT_POLICIES[reason]
    if isinstance(error, TrainerError | Interrupted):
        log.log(logging.INFO if exit_policy.disruption else logging.ERROR, "%s: %s", reason, message)
        log.debug("", exc_info=error)
    else:
        log.error("%s: %s\n%s", reason, message, "".join(traceback.format_exception(error)))
    return Outcome(reason=reason, message=message, rank=None if exit_policy.disruption else rank)


def _classify_error(error: BaseException) -> tuple[Reason, str]:
    try:
        from finetune_trainer.training.failures import classify_error
    except Exception:  # torch cannot be imported, which may be why the rank failed
        text = f"{type(error).__name__}: {error}"
        return classify_full_volume(text) or (Reason.CRASHED, f"{UNEXPECTED_ERROR}: {text}")
    return classify_error(error)


def _load_document(path: Path) -> TrainSpec:
    try:
        return TrainSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigurationError("; ".join(explain(error, "spec"))) from error
    except OSError as error:
        raise ConfigurationError(f"document: {path} cannot be read ({error.strerror}): name another file") from error


def _launch_context(arguments: argparse.Namespace) -> LaunchContext:
    return LaunchContext(
        job=arguments.job,
        run_id=arguments.run_id or arguments.job,
        completes_once=os.environ.get(COMPLETES_ONCE) == "1",
        rank=arguments.rank,
        world_size=arguments.world_size,
        local_rank=arguments.local_rank,
        processes_per_node=arguments.processes_per_node,
        master=arguments.master,
        attempt=arguments.attempt,
        work_dir=arguments.work_dir,
        cache_dir=arguments.cache_dir,
        credentials=Credentials(arguments.credentials_dir),
    )


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.training", description=__doc__)
    parser.add_argument("--document", type=Path, required=True, help="the TrainSpec as JSON")
    parser.add_argument("--job", required=True, help="NAMESPACE/NAME, for messages")
    parser.add_argument("--run-id", help="identifies this run among all that may use its storage; by default --job")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--local-rank", type=int, required=True)
    parser.add_argument("--processes-per-node", type=int, required=True)
    parser.add_argument("--master", required=True, metavar="HOST:PORT", help="the address on which rank 0 listens")
    parser.add_argument("--attempt", required=True, help="name of this attempt to run the process group")
    parser.add_argument("--work-dir", type=Path, required=True, help="scratch space of this node")
    parser.add_argument("--cache-dir", type=Path, required=True, help="models and prepared data, shared by the node's ranks")
    parser.add_argument("--credentials-dir", type=Path, help="a folder with a folder for each Secret and a file for each key")
    parser.add_argument("--telemetry-fd", type=int, required=True, help="an inherited pipe for events")
    parser.add_argument("--stack-file", type=Path, help="where to write the stacks of all threads upon SIGUSR1")
    return parser.parse_args(argv)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    # The outcome is reported: threads of torch or of an interrupted upload must neither delay nor crash the exit.
    os._exit(code)
