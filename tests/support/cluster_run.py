"""A training run on the cluster that tests break while it trains, and the loss curve of the same run without faults."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster_jobs import Jobs, tiny
from tests.support.devcluster import faults
from tests.support.training_log import Recovery, TrainingLog, recovery

from finetune_trainer.checkpoint.manifest import committed_steps, read_manifest
from finetune_trainer.storage.base import Storage

STEPS = 900  # the longest fault takes about five minutes
CHECKPOINT_EVERY = 5
HANG_SECONDS = 20
Curve = dict[int, float]


def document(name: str, storage: str, steps: int = STEPS, **spec: Any) -> dict[str, Any]:
    """Two nodes with ZeRO-2 and steps of about a fifth of a second."""
    base: dict[str, Any] = {
        "training": {"batchSize": 16, "logEverySteps": 1},
        "deepspeed": {"zeroStage": 2},
        "runPolicy": {"backoffLimit": 100, "hang": {"stepSeconds": HANG_SECONDS}},
    }
    assert not base.keys() & spec.keys()
    return tiny(name, storage, nodes=2, steps=steps, **base, **spec)


def stored_curve(storage: Storage) -> Curve:
    """The loss of every step up to the newest committed checkpoint, as its files have it; empty without a checkpoint."""
    import torch  # takes seconds, and most tests on the cluster do not need it

    for step in committed_steps(storage):
        manifest = read_manifest(storage, step)
        if manifest is None:
            continue
        content = storage.get(f"{manifest.folder}/mp_rank_00_model_states.pt")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return {int(number): loss for number, loss, _ in state["finetune"]["history"]["training"]}
    return {}


def exported_curve(storage: Storage) -> Curve:
    """The loss of every step, from the history that is stored with the exported model."""
    lines = storage.get("model/training/history.jsonl").decode().splitlines()
    return {point["step"]: point["loss"] for point in map(json.loads, lines) if "loss" in point}


def undisturbed_curve(jobs: Jobs, folder: Path, steps: int = STEPS) -> Curve:
    """The loss curve of the document without faults; trained once for each trainer image and document."""
    content = json.dumps([document("", "", steps), jobs.cluster.image("trainer")], sort_keys=True)
    name = f"undisturbed-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    uri = f"s3://finetune/faults/{name}"
    storage = jobs.store(uri, folder)
    if not storage.exists("model/training/history.jsonl"):
        jobs.apply(document(name, uri, steps))
        jobs.wait_for_phase(name, "Succeeded", seconds=900 + steps)
        assert jobs.status(name)["restarts"]["total"] == 0
        jobs.kubectl("delete", "ftj", name)
    return exported_curve(storage)


@dataclass
class ClusterRun:
    """One job of `document`; `storage` reads its checkpoints."""

    jobs: Jobs
    name: str
    storage: Storage
    expected: Curve
    log: TrainingLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = TrainingLog(self.jobs.namespace, self.name)

    def status(self) -> dict[str, Any]:
        """The status of the job."""
        return self.jobs.status(self.name)

    def wait(self, goal: str, is_reached: Callable[[], bool], *, seconds: float = 120) -> None:
        """Wait until the goal is reached; fails with a description of the job if it fails or takes too long."""
        deadline = time.monotonic() + seconds
        while not is_reached():
            problem = "failed before" if self.status().get("phase") == "Failed" else ""
            if time.monotonic() > deadline:
                problem = f"did not reach within {seconds:.0f} s"
            if problem:
                raise AssertionError(f"{self.name} {problem}: {goal}\n{self.jobs.describe(self.name)}")
            time.sleep(0.3)

    def wait_for_steps(self, count: int, *, seconds: float = 120) -> None:
        """Wait until this many more steps were completed."""
        target = self.log.update().highest_step + count
        self.wait(f"step {target}", lambda: self.log.update().highest_step >= target, seconds=seconds)

    def wait_until_ready(self, *, seconds: float = 300) -> None:
        """Wait until all pods are ready and steps are completed and stored."""

        def is_ready() -> bool:
            status = self.status()
            return status.get("phase") == "Running" and status["workers"]["ready"] == 2

        self.wait("all pods ready", is_ready, seconds=seconds)
        self.wait_for_steps(1, seconds=seconds)
        self.wait_for_checkpoint(self.log.highest_step - CHECKPOINT_EVERY, seconds=60)

    def wait_until_spares_are_ready(self, *, seconds: float = 240) -> None:
        """Wait until each pod has a spare, which imports at a low priority while the ranks keep the cores busy."""

        def are_ready() -> bool:
            logs = (self.jobs.kubectl("logs", self.pod(index)["metadata"]["name"]) for index in range(2))
            return all("a spare process has imported the libraries" in log for log in logs)

        self.wait("a spare in each pod", are_ready, seconds=seconds)

    def wait_for_checkpoint(self, step: int, *, seconds: float = 120) -> int:
        """Wait until a checkpoint of this step or a later one is committed; returns its step."""

        def newest() -> int:
            return max(committed_steps(self.storage), default=0)

        self.wait(f"a checkpoint of step {step}", lambda: newest() >= max(step, 1), seconds=seconds)
        return newest()

    def wait_for_recovery(self, fault: float, restarts: int, *, seconds: float) -> Recovery:
        """Wait until the run has recovered from a fault at this time."""

        def measured() -> Recovery | None:
            return recovery(self.log.update().entries, fault, restarts=restarts)

        self.wait(f"a step after {restarts} restarts", lambda: measured() is not None, seconds=seconds)
        result = measured()
        assert result is not None
        return result

    def check_curve(self) -> int:
        """Check that the losses up to the newest checkpoint equal those of the undisturbed run to the last bit.

        Returns the number of compared steps.
        """
        curve = stored_curve(self.storage)
        compared = curve.keys() & self.expected.keys()  # the history of a long run keeps every second step, then every fourth
        assert compared, "no step is in both histories"
        different = {step: (curve[step], self.expected[step]) for step in compared if curve[step] != self.expected[step]}
        assert different == {}
        return len(compared)

    def pod(self, index: int) -> dict[str, Any]:
        """The pod of a node that runs or is about to run."""
        [pod] = self._current_pods(index)
        return pod

    def _current_pods(self, index: int) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self.jobs.pods(self.name).values()
            if pod["metadata"]["labels"]["finetune-operator.io/node-rank"] == str(index)
            and pod["status"]["phase"] in ("Pending", "Running")
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def node(self, index: int) -> str:
        """The name of the node on which a pod runs."""
        return str(self.pod(index)["spec"]["nodeName"])

    def is_scheduled(self, index: int) -> bool:
        """Whether a pod exists and has a node."""
        return any(pod["spec"].get("nodeName") for pod in self._current_pods(index))

    def rank_pids(self, index: int) -> list[int]:
        """The host pids of the ranks of a pod."""
        pod = self.pod(index)
        pids = faults.rank_pids(pod["spec"]["nodeName"], pod["metadata"]["uid"])
        assert pids, f"no rank runs in {pod['metadata']['name']}"
        return pids

    def signal_rank(self, index: int, number: signal.Signals) -> None:
        """Send a signal to the rank of a pod."""
        faults.send_signal(self.rank_pids(index), number)

    def kill_container(self, index: int) -> None:
        """Kill all processes of the trainer's container with SIGKILL."""
        pod = self.pod(index)
        faults.send_signal(faults.container_pids(pod["spec"]["nodeName"], pod["metadata"]["uid"]), signal.SIGKILL)

    def uids(self) -> list[str]:
        """The UIDs of the current pods of both nodes."""
        return [str(self.pod(index)["metadata"]["uid"]) for index in range(2)]

    def wait_for_new_pod(self, index: int, old_uid: str) -> None:
        """Wait until a pod that replaces the one with this UID runs."""

        def is_running() -> bool:
            pods = self._current_pods(index)
            return any(pod["metadata"]["uid"] != old_uid and pod["status"]["phase"] == "Running" for pod in pods)

        self.wait(f"a new pod {index} that runs", is_running)

    def restarts(self) -> dict[str, int]:
        """How many failures and disruptions the status counts."""
        counted = self.status()["restarts"]
        return {kind: counted[kind] for kind in ("failures", "disruptions")}

    def condition(self, condition_type: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty if it was never set."""
        for condition in self.status().get("conditions", []):
            if condition["type"] == condition_type:
                return condition["status"], condition["reason"], condition["message"]
        return "", "", ""

    def spread(self) -> None:
        """Move pod 1 to the other node if both pods are on one."""
        if self.node(0) == self.node(1):
            fault = time.time()
            self.delete_pod(1)
            self.wait_for_recovery(fault, 1, seconds=240)
            self.wait_until_ready()
            assert self.node(0) != self.node(1)

    def delete_pod(self, index: int, *options: str) -> str:
        """Delete the pod of a node, without waiting for its end; returns its name."""
        name = str(self.pod(index)["metadata"]["name"])
        self.jobs.kubectl("delete", "pod", name, "--wait=false", *options)
        return name


@dataclass
class ClusterRuns:
    """Provides a run that trains; a run that a fault has broken, or that is almost complete, is replaced by a new one."""

    jobs: Jobs
    storage: str
    credentials: str
    expected: Curve
    folder: Path
    _current: ClusterRun | None = None
    _started: int = 0

    def healthy(self, *, steps: int = 450) -> ClusterRun:
        """A run whose pods are ready and that has at least this many steps left."""
        if self._current is not None:
            try:
                if self._current.log.update().highest_step + steps <= STEPS:
                    self._current.wait_until_ready(seconds=150)
                    return self._current
            except AssertionError as error:
                print(f"the run is replaced: {str(error)[:2000]}")
            self.stop()
        self._started += 1
        name = f"run-{self._started}"
        uri = f"{self.storage}/{name}"
        self.jobs.apply(document(name, uri, checkpoint={"credentials": self.credentials}))
        self._current = ClusterRun(self.jobs, name, self.jobs.store(uri, self.folder), self.expected)
        self._current.wait_until_ready()
        return self._current

    def stop(self) -> None:
        """Delete the current run."""
        if self._current is not None:
            self.jobs.kubectl("delete", "ftj", self._current.name, "--wait=true")
            self._current.log.close()
            self._current = None
