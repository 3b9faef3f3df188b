"""FineTuneJobs on a real cluster: applies jobs, waits for their status, and reads the objects they store."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.support.devcluster.errors import ClusterError

from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.registry import open_storage

SAMPLES = Path(__file__).parents[2] / "manifests/samples"
SECRET = "finetune-storage"


def sample(name: str, **spec: Any) -> dict[str, Any]:
    """A document of manifests/samples with `spec` merged into its spec."""
    document: dict[str, Any] = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    document["spec"] = _merged(document["spec"], spec)
    return document


def tiny(name: str, storage: str, *, nodes: int = 1, steps: int = 20, **spec: Any) -> dict[str, Any]:
    """A minimal job: trains a Llama with a few thousand parameters on the Python sources in the trainer image."""
    base: dict[str, Any] = {
        "model": {
            "initialization": "Scratch",
            "config": {
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 128,
            },
            "tokenizer": {"train": {"vocabSize": 512}},
        },
        "data": {
            "train": [{"source": "file:///usr/lib/python3.11/json/*.py", "format": "Text"}],
            "maxLength": 64,
        },
        "training": {"maxSteps": steps, "batchSize": 4, "microBatchSize": 2, "optimizer": {"learningRate": 0.003}},
        "checkpoint": {"storage": storage, "credentials": SECRET, "everySteps": 5},
        "workers": {
            "nodes": nodes,
            "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": 1}},
        },
        "runPolicy": {"terminationGracePeriodSeconds": 30},
    }
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": _merged(base, spec),
    }


def _merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in overrides.items():
        base_value = result.get(key)
        if isinstance(value, dict) and isinstance(base_value, dict):
            result[key] = _merged(base_value, value)
        else:
            result[key] = value
    return result


@dataclass(frozen=True)
class Jobs:
    """The FineTuneJobs of one namespace; `secret` holds the credentials of the storage Secret."""

    cluster: Any
    namespace: str
    secret: dict[str, str]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace and return its output."""
        return str(self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin))

    def apply(self, document: dict[str, Any]) -> str:
        """Apply a document and return the name of the job."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps(document))
        return str(document["metadata"]["name"])

    def get(self, name: str) -> dict[str, Any]:
        """Get a job."""
        job: dict[str, Any] = json.loads(self.kubectl("get", "ftj", name, "--output=json"))
        return job

    def status(self, name: str) -> dict[str, Any]:
        """The status of a job; empty before its first reconcile."""
        status: dict[str, Any] = self.get(name).get("status", {})
        return status

    def pods(self, name: str) -> dict[str, dict[str, Any]]:
        """The pods of a job by name."""
        listed = json.loads(self.kubectl("get", "pods", f"--selector=finetune-operator.io/job={name}", "--output=json"))
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    def create_secret(self, name: str, keys: dict[str, str]) -> None:
        """Create a Secret, or replace its keys."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(secret))

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Apply a merge patch to the spec of a job."""
        self.kubectl("patch", "ftj", name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def wait(
        self,
        name: str,
        goal: str,
        is_reached: Callable[[dict[str, Any]], bool],
        *,
        seconds: float = 120,
        may_fail: bool = False,
    ) -> dict[str, Any]:
        """Wait until a status satisfies `is_reached`, and return it.

        Fails the test, with a description of the job, if the job fails or takes too long.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(name)
            if is_reached(status):
                return status
            failed = status.get("phase") == "Failed" and not may_fail
            if failed or time.monotonic() > deadline:
                problem = "failed before" if failed else "did not reach"
                raise AssertionError(f"{name} {problem} {goal}:\n{self.describe(name)}")
            time.sleep(0.5)

    def wait_for_phase(self, name: str, phase: str, *, seconds: float = 120) -> dict[str, Any]:
        """Wait until a job is in a phase, and return its status."""
        return self.wait(name, phase, lambda status: status.get("phase") == phase, seconds=seconds, may_fail=phase == "Failed")

    def wait_for_step(self, name: str, step: int, *, seconds: float = 240) -> dict[str, Any]:
        """Wait until a job has completed this number of optimizer steps, and return its status."""
        return self.wait(
            name, f"step {step}", lambda status: (status.get("progress") or {}).get("step", 0) >= step, seconds=seconds
        )

    def describe(self, name: str) -> str:
        """The description of a job and the last log lines of its pods."""
        parts = [self.kubectl("describe", "ftj", name)]
        for pod in self.pods(name):
            parts.append(f"--- {pod}\n{self._log(pod)}")
        return "\n".join(parts)

    def _log(self, pod: str) -> str:
        try:
            return self.kubectl("logs", pod, "--tail=60")
        except ClusterError as error:  # its node does not answer
            return str(error)

    def condition(self, name: str, condition_type: str) -> dict[str, Any]:
        """A condition of a job."""
        [match] = [condition for condition in self.status(name)["conditions"] if condition["type"] == condition_type]
        return dict(match)

    def delete_objects(self, storage: str, folder: Path) -> None:
        """Delete all objects at a storage URI, which an earlier test session may have left."""
        store = self.store(storage, folder)
        for entry in store.list():
            store.delete(entry.path)

    def store(self, storage: str, folder: Path) -> Storage:
        """Open a storage URI of the cluster's S3 with the credentials of the Secret, which are written to `folder`."""
        keys = folder / SECRET
        keys.mkdir(parents=True, exist_ok=True)
        for key, value in (self.secret | {"AWS_ENDPOINT_URL": self.cluster.s3.host_endpoint}).items():
            (keys / key).write_text(value)
        return open_storage(storage, Credentials(folder), SECRET)
