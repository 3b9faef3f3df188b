"""Runs the measurements of this node in a process of its own, together with the other nodes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from finetune_trainer.agent.environment import has_gpu
from finetune_trainer.agent.preflight import NodeMeasurement, failing_nodes, parse_output
from finetune_trainer.agent.rendezvous import Rendezvous
from finetune_trainer.agent.settings import Settings
from finetune_trainer.config.preflight import PreflightConfig

READ_SECONDS = 10.0  # for the other agents to read the results before the round ends


def run_preflight(
    settings: Settings, rendezvous: Rendezvous, environment: Mapping[str, str], poll: Callable[[], object],
    tick: Callable[[], None],
) -> dict[int, str]:  # fmt: skip
    """The nodes that fail, and why: the same answer on every node. All nodes call it in the same round.

    `poll` waits a moment, and raises if the round or the run ends; `tick` only waits.
    """
    text, master = rendezvous.preflight_config()
    config = PreflightConfig.model_validate_json(text)
    own = _measure(settings, rendezvous.nodes, config, master, environment, poll)
    rendezvous.publish_measurement(own.model_dump_json(by_alias=True))
    while rendezvous.count_measurements() < rendezvous.nodes:
        poll()
    results = [NodeMeasurement.model_validate_json(text) for text in rendezvous.read_measurements()]
    deadline = time.monotonic() + READ_SECONDS
    # An agent that leaves ends the round for the others, which must know the results by then.
    while rendezvous.acknowledge_measurements() < rendezvous.nodes and time.monotonic() < deadline:
        tick()
    devices = settings.processes_per_node if has_gpu(environment) else 1
    return failing_nodes(results, devices, config)


def _measure(
    settings: Settings, nodes: int, config: PreflightConfig, master: str, environment: Mapping[str, str],
    poll: Callable[[], object],
) -> NodeMeasurement:  # fmt: skip
    output = settings.work_dir / "preflight.jsonl"
    command = [
        sys.executable, "-m", settings.preflight_module, "--node", str(settings.node_rank), "--nodes", str(nodes),
        "--devices", str(settings.processes_per_node), "--master", master,
    ]  # fmt: skip
    with (
        output.open("wb") as file,
        subprocess.Popen(command, stdout=file, env=dict(environment), cwd=settings.work_dir) as process,
    ):
        try:
            deadline = time.monotonic() + config.timeout_seconds
            while process.poll() is None and time.monotonic() < deadline:
                poll()
            has_ended = process.poll() is not None
        finally:
            process.kill()
    return parse_output(output.read_text(errors="replace")).model_copy(update={"has_ended": has_ended})
