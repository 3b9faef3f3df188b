"""One rank of a run: `python -m finetune_trainer.training`, started by the agent of its node."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.config import TrainSpec, explain
from finetune_trainer.distributed.preemption import Interrupted, PreemptionSignal
from finetune_trainer.protocol.events import Alive, Ended, EventSink, PipeEventSink
from finetune_trainer.protocol.outcome import EXIT_POLICIES, ConfigurationError, Outcome, TrainerError
from finetune_trainer.storage.base import Credentials

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run one rank; returns its exit code, having told the agent how it ended."""
    given = _parse(arguments)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s rank {given.rank} %(levelname)s %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    report = PipeEventSink(given.telemetry_fd)
    stop = PreemptionSignal()
    stop.install()
    outcome = _run(given, report, stop)
    stop.ignore()
    report(Ended(outcome=outcome))
    return outcome.exit_policy.exit_code


def _run(given: argparse.Namespace, report: EventSink, stop: PreemptionSignal) -> Outcome:
    try:
        report(Alive(activity="Starting"))
        spec = _load(given.document)
        # Importing torch takes seconds, in which a mistake in the document need not hide.
        import transformers

        from finetune_trainer.training import trainer

        transformers.utils.logging.disable_progress_bar()
        place = trainer.LaunchContext(
            given.rank, given.world_size, given.local_rank, given.processes_per_node, given.master, given.attempt,
            given.work_dir, given.cache_dir, Credentials(given.credentials_dir),
        )  # fmt: skip
        return trainer.run(spec, place, report, stop)
    except BaseException as error:
        return _outcome(error, given.rank)


def _outcome(error: BaseException, rank: int) -> Outcome:
    from finetune_trainer.training import failures

    reason, message = failures.explain(error)
    exit_policy = EXIT_POLICIES[reason]
    if isinstance(error, TrainerError | Interrupted):
        log.log(logging.INFO if exit_policy.disruption else logging.ERROR, "%s: %s", reason, message)
        log.debug("", exc_info=error)
    else:
        log.error("%s: %s\n%s", reason, message, "".join(traceback.format_exception(error)))
    return Outcome(reason=reason, message=message, rank=None if exit_policy.disruption else rank)


def _load(document: Path) -> TrainSpec:
    try:
        return TrainSpec.model_validate_json(document.read_bytes())
    except ValidationError as error:
        raise ConfigurationError("; ".join(explain(error, "spec"))) from error
    except OSError as error:
        raise ConfigurationError(f"document: {document} cannot be read ({error.strerror}): name another file") from error


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.training", description=__doc__)
    parser.add_argument("--document", type=Path, required=True, help="the TrainSpec as JSON")
    parser.add_argument("--job", required=True, help="NAMESPACE/NAME, for the log")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--local-rank", type=int, required=True)
    parser.add_argument("--processes-per-node", type=int, required=True)
    parser.add_argument("--master", required=True, metavar="HOST:PORT", help="where rank 0 listens")
    parser.add_argument("--attempt", required=True, help="name of this life of the process group")
    parser.add_argument("--work-dir", type=Path, required=True, help="scratch space of this node")
    parser.add_argument("--cache-dir", type=Path, required=True, help="models and prepared data, shared by the node's ranks")
    parser.add_argument("--credentials-dir", type=Path, help="one folder a Secret, one file a key")
    parser.add_argument("--telemetry-fd", type=int, required=True, help="an inherited pipe for events")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    # Threads of torch's and of an interrupted upload must not hold up, or crash, an end that has been told already.
    os._exit(code)
