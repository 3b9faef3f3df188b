"""The agent's command line and its termination message."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from finetune_trainer.agent import termination_message
from finetune_trainer.agent.agent import Agent
from finetune_trainer.agent.environment import rank_environment
from finetune_trainer.agent.metrics import Metrics
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.server import serve
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.stop_signals import StopSignals
from finetune_trainer.config.hang_limits import HangLimits
from finetune_trainer.config.preflight import PreflightConfig
from finetune_trainer.protocol.outcome import Outcome, Reason

LOG = logging.getLogger("finetune.agent")


def main(stops: StopSignals, arguments: Sequence[str] | None = None) -> int:
    """Run one agent and return its exit code; `stops` is installed already."""
    return run(parse(arguments), stops)


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of a command line; exits with a usage message if it is invalid."""
    parser = argparse.ArgumentParser("finetune_trainer.agent", description="Process 1 of a trainer pod.")
    parser.add_argument("--document", type=Path, required=True, help="the TrainSpec as JSON")
    parser.add_argument("--job", required=True, metavar="NAMESPACE/NAME")
    parser.add_argument("--run-id", help="identifies this run among all that may use its storage; by default --job")
    parser.add_argument("--node-rank", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the run; that of agent 0 holds for all agents")
    parser.add_argument("--processes-per-node", type=int, required=True)
    parser.add_argument("--rendezvous", required=True, metavar="HOST:PORT", help="address of the store, which agent 0 hosts")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, help="for models and prepared data; by default below the work directory")
    parser.add_argument(
        "--http-port", type=int, default=Settings.http_port, help="port of /metrics, /progress and /healthz; 0 for no server"
    )
    parser.add_argument("--credentials-dir", type=Path, help="one directory per Secret, one file per key")
    parser.add_argument("--termination-log", type=Path, help="file for the termination message")
    parser.add_argument("--rank-module", default=Settings.rank_module, help="the Python module that a rank runs")
    parser.add_argument(
        "--hang-limits", type=HangLimits.model_validate_json, default=HangLimits(), metavar="JSON",
        help="runPolicy.hang: seconds without a sign of life",
    )  # fmt: skip
    parser.add_argument(
        "--preflight", type=PreflightConfig.model_validate_json, metavar="JSON",
        help="runPolicy.preflight: checks the node before its first ranks start",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    namespace, slash, job = options.job.partition("/")
    host, colon, port = options.rendezvous.rpartition(":")
    if not (namespace and slash and job):
        parser.error(f"--job {options.job}: write NAMESPACE/NAME")
    if not (host and colon and port.isdecimal()):
        parser.error(f"--rendezvous {options.rendezvous}: write HOST:PORT")
    if not 0 <= options.node_rank < options.nodes:
        parser.error(f"--node-rank {options.node_rank}: must be below --nodes {options.nodes}")
    return Settings(
        document=options.document,
        namespace=namespace,
        job=job,
        node_rank=options.node_rank,
        nodes=options.nodes,
        processes_per_node=options.processes_per_node,
        rendezvous_host=host.strip("[]"),
        rendezvous_port=int(port),
        work_dir=options.work_dir,
        cache_dir=options.cache_dir or options.work_dir / "cache",
        run_id=options.run_id,
        http_port=options.http_port,
        credentials_dir=options.credentials_dir,
        termination_log=options.termination_log,
        rank_module=options.rank_module,
        hang=options.hang_limits,
        preflight=options.preflight,
    )


def run(settings: Settings, stops: StopSignals) -> int:
    """Run the agent, write its termination message and return its exit code."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s agent {settings.node_rank}: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    try:
        outcome = _run_agent(settings, stops)
    except OSError as error:
        LOG.exception("the agent failed")
        outcome = Outcome(reason=Reason.CRASHED, message=f"agent {settings.node_rank} failed: {error}", node=settings.node_rank)
    except Exception as error:
        LOG.exception("the agent failed")
        message = f"agent {settings.node_rank} failed with {type(error).__name__}: {error}; the traceback is in its log"
        outcome = Outcome(reason=Reason.INTERNAL_ERROR, message=message, node=settings.node_rank)
    LOG.info("ended: %s: %s", outcome.reason, outcome.message or outcome.exit_policy.meaning)
    termination_message.write(outcome, settings.termination_log)
    return outcome.exit_policy.exit_code


def _run_agent(settings: Settings, stops: StopSignals) -> Outcome:
    for directory in (settings.work_dir, settings.cache_dir):
        directory.mkdir(parents=True, exist_ok=True)
    monitor = Monitor(Metrics(settings.namespace, settings.job), settings.rank(0))
    if settings.http_port:
        serve(settings.http_port, monitor)
    return Agent(settings, monitor, stops, rank_environment(settings, os.environ)).run()
