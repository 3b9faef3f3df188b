"""What the cluster tests do with jobs: apply them, watch their status, read what they left behind."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_trainer.storage.base import Credentials, Storage

SAMPLES = Path(__file__).parents[2] / "manifests/samples"
SECRET = "finetune-storage"


def sample(name: str, **spec: Any) -> dict[str, Any]:
    """A document of manifests/samples, with sections of its spec merged over."""
    document: dict[str, Any] = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    document["spec"] = _merged(document["spec"], spec)
    return document


def tiny(name: str, storage: str, *, nodes: int = 1, steps: int = 20, **spec: Any) -> dict[str, Any]:
    """A job as small as it can be and still be a job: a Llama of some thousand weights on the image's own Python sources."""
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


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in over.items():
        inner = result.get(key)
        result[key] = _merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return result


@dataclass(frozen=True)
class Jobs:
    """FineTuneJobs of one namespace."""

    cluster: Any
    namespace: str
    secret: dict[str, str]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl in this namespace; its output."""
        return str(self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin))

    def apply(self, document: dict[str, Any]) -> str:
        """kubectl apply; the job's name."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps(document))
        return str(document["metadata"]["name"])

    def get(self, name: str) -> dict[str, Any]:
        """The whole object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "ftj", name, "--output=json"))
        return found

    def status(self, name: str) -> dict[str, Any]:
        """Its status; empty while no operator has looked."""
        status: dict[str, Any] = self.get(name).get("status", {})
        return status

    def pods(self, name: str) -> dict[str, dict[str, Any]]:
        """Its pods by name."""
        listed = json.loads(self.kubectl("get", "pods", f"--selector=finetune-operator.io/job={name}", "--output=json"))
        return {pod["metadata"]["name"]: pod for pod in listed["items"]}

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Merge-patch its spec."""
        self.kubectl("patch", "ftj", name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def wait(
        self, name: str, what: str, until: Callable[[dict[str, Any]], bool], *, seconds: float = 120, may_fail: bool = False
    ) -> dict[str, Any]:
        """Its status, once `until` holds; a job that fails meanwhile, or takes too long, fails the test with all it says."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(name)
            if until(status):
                return status
            failed = status.get("phase") == "Failed" and not may_fail
            if failed or time.monotonic() > deadline:
                raise AssertionError(f"{name} {'failed' if failed else 'did not come'} to {what}:\n{self.story(name)}")
            time.sleep(0.5)

    def wait_for_phase(self, name: str, phase: str, *, seconds: float = 120) -> dict[str, Any]:
        """Its status, once it is in this phase."""
        return self.wait(name, phase, lambda status: status.get("phase") == phase, seconds=seconds, may_fail=phase == "Failed")

    def wait_for_step(self, name: str, step: int, *, seconds: float = 240) -> dict[str, Any]:
        """Its status, once that many optimizer steps are done."""
        return self.wait(
            name, f"step {step}", lambda status: (status.get("progress") or {}).get("step", 0) >= step, seconds=seconds
        )

    def story(self, name: str) -> str:
        """All that a person would look at."""
        parts = [self.kubectl("describe", "ftj", name)]
        for pod in self.pods(name):
            parts.append(f"--- {pod}\n{self.kubectl('logs', pod, '--tail=60')}")
        return "\n".join(parts)

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """One of its conditions."""
        [found] = [condition for condition in self.status(name)["conditions"] if condition["type"] == kind]
        return dict(found)

    def empty(self, storage: str, folder: Path) -> None:
        """Remove what an earlier test session may have left at an address."""
        store = self.store(storage, folder)
        for entry in store.list():
            store.delete(entry.path)

    def store(self, storage: str, folder: Path) -> Storage:
        """An address of the cluster's S3, opened from here with the very keys the Secret holds; `folder` keeps them."""
        keys = folder / SECRET
        keys.mkdir(parents=True, exist_ok=True)
        for key, value in (self.secret | {"AWS_ENDPOINT_URL": self.cluster.s3.host_endpoint}).items():
            (keys / key).write_text(value)
        return Storage.open(storage, Credentials(folder), SECRET)
