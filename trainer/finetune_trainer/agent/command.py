"""The agent's command line, and its last word."""

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
from finetune_trainer.protocol.outcome import Outcome, Reason

LOG = logging.getLogger("finetune.agent")


def main(stops: StopSignals, arguments: Sequence[str] | None = None) -> int:
    """Run one agent; its exit code. `stops` counts signals already."""
    return run(parse(arguments), stops)


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of a command line; ends the process with a usage message when it is wrong."""
    parser = argparse.ArgumentParser("finetune_trainer.agent", description="Process 1 of a trainer pod.")
    parser.add_argument("--document", type=Path, required=True, help="train.json")
    parser.add_argument("--job", required=True, metavar="NAMESPACE/NAME")
    parser.add_argument("--node-rank", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--processes-per-node", type=int, required=True)
    parser.add_argument("--rendezvous", required=True, metavar="HOST:PORT", help="where agent 0 hosts the store")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path, help="prepared data; by default in the work directory")
    parser.add_argument("--http-port", type=int, default=9400, help="of /metrics, /progress and /healthz; 0: none")
    parser.add_argument("--credentials-dir", type=Path)
    parser.add_argument("--termination-log", type=Path, help="where the last word goes")
    parser.add_argument("--rank-module", default="finetune_trainer.training", help="the Python module that a rank runs")
    given = parser.parse_args(arguments)
    namespace, slash, job = given.job.partition("/")
    host, colon, port = given.rendezvous.rpartition(":")
    if not (namespace and slash and job):
        parser.error(f"--job {given.job}: write NAMESPACE/NAME")
    if not (host and colon and port.isdecimal()):
        parser.error(f"--rendezvous {given.rendezvous}: write HOST:PORT")
    if not 0 <= given.node_rank < given.nodes:
        parser.error(f"--node-rank {given.node_rank}: must be below --nodes {given.nodes}")
    return Settings(
        document=given.document,
        namespace=namespace,
        job=job,
        node_rank=given.node_rank,
        nodes=given.nodes,
        processes_per_node=given.processes_per_node,
        rendezvous_host=host.strip("[]"),
        rendezvous_port=int(port),
        work_dir=given.work_dir,
        cache_dir=given.cache_dir or given.work_dir / "cache",
        http_port=given.http_port,
        credentials_dir=given.credentials_dir,
        termination_log=given.termination_log,
        rank_module=given.rank_module,
    )


def run(settings: Settings, stops: StopSignals) -> int:
    """Run the agent to its end and leave its last word; the exit code."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s agent {settings.node_rank}: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    try:
        outcome = _run(settings, stops)
    except OSError as error:
        LOG.exception("the agent failed")
        outcome = Outcome(reason=Reason.CRASHED, message=f"agent {settings.node_rank} failed: {error}", node=settings.node_rank)
    except Exception as error:
        LOG.exception("the agent failed")
        message = f"agent {settings.node_rank} failed with {type(error).__name__}: {error}; the traceback is in its log"
        outcome = Outcome(reason=Reason.INTERNAL_ERROR, message=message, node=settings.node_rank)
    LOG.info("the end: %s", f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason)
    termination_message.write(outcome, settings.termination_log)
    return outcome.exit_policy.exit_code


def _run(settings: Settings, stops: StopSignals) -> Outcome:
    for directory in (settings.work_dir, settings.cache_dir):
        directory.mkdir(parents=True, exist_ok=True)
    monitor = Monitor(Metrics(settings.namespace, settings.job), settings.rank(0))
    if settings.http_port:
        serve(settings.http_port, monitor)
    return Agent(settings, monitor, stops, rank_environment(settings, os.environ)).run()
