"""Training from start to end: a job is applied, loses a pod, and exports a model that transformers loads."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster_jobs import SECRET, Jobs, sample, tiny
from tests.support.installation import NAMESPACE, RELEASE

INSTALLED_BY = "helm"
STORAGE = "s3://finetune/{name}"
# A sixth of the steps of the sample, each on a quarter of its tokens, from a part of its files.
SHORTER = {
    "training": {"maxSteps": 40, "batchSize": 8, "microBatchSize": 4},
    "evaluation": {"everySteps": 20},
    "data": {
        "train": [{"source": "file:///usr/lib/python3.11/*.py", "format": "Text"}],
        "evaluationFraction": 0.05,
        "maxLength": 128,
    },
}


def query(cluster: Any, expression: str) -> list[dict[str, Any]]:
    """The result of an instant query to Prometheus."""
    url = f"{cluster.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as response:
        return list(json.load(response)["data"]["result"])


def logged_losses(log: str) -> dict[int, float]:
    """Loss by step, from the log of rank 0."""
    return {int(step): float(loss) for step, loss in re.findall(r"step (\d+)/\d+\b.*?\bloss ([0-9.]+)", log)}


def loss_curve(jobs: Jobs, name: str, folder: Path) -> dict[int, float]:
    """Loss by step, from the history that is stored with the exported model."""
    history = jobs.store(STORAGE.format(name=name), folder).get("model/training/history.jsonl").decode()
    points = [json.loads(line) for line in history.splitlines()]
    return {point["step"]: point["loss"] for point in points if point.get("loss") is not None}


def run_uninterrupted(jobs: Jobs, name: str) -> None:
    """Run the shorter sample under another name until it succeeds."""
    document = sample("pretrain-stdlib", **SHORTER, checkpoint={"storage": STORAGE.format(name=name)})
    document["metadata"]["name"] = name
    jobs.apply(document)
    jobs.wait_for_phase(name, "Succeeded", seconds=600)


@pytest.mark.timeout(1500)
def test_sample_recovers_from_lost_pod_and_exports_model(jobs: Jobs, tmp_path: Path) -> None:
    """On two nodes with ZeRO-2; the loss curve equals that of an uninterrupted run."""
    name = "pretrain-stdlib"
    for job_name in (name, f"{name}-uninterrupted"):
        jobs.delete_objects(STORAGE.format(name=job_name), tmp_path)  # a job would resume from old checkpoints
    jobs.apply(sample(name, **SHORTER))
    jobs.wait_for_step(name, 10, seconds=300)

    pods = jobs.pods(name)
    assert set(pods) == {f"{name}-0", f"{name}-1"}
    assert len({pod["spec"]["nodeName"] for pod in pods.values()}) == 2, "one pod a node"
    table = jobs.kubectl("get", "ftj")
    assert re.search(rf"{name}\s+Running\s+\d+\s+\d+\s+[0-9.]+\s+\S+\s+2/2\s+0\s", table), table

    _check_loss_in_prometheus(jobs, name)

    jobs.wait(name, "a checkpoint", lambda status: (status.get("checkpoint") or {}).get("step", 0) >= 20)
    saved = jobs.status(name)["checkpoint"]["step"]
    jobs.kubectl("delete", "pod", f"{name}-1", "--grace-period=0", "--force")
    status = jobs.wait(name, "its restart", lambda status: (status.get("restarts") or {}).get("total", 0) >= 1)
    assert status["restarts"]["disruptions"] == 1
    assert status["restarts"]["failures"] == 0, "a deleted pod does not count towards backoffLimit"
    status = jobs.wait_for_phase(name, "Succeeded", seconds=600)
    first = jobs.pods(name)[f"{name}-0"]
    assert first["metadata"]["uid"] == pods[f"{name}-0"]["metadata"]["uid"], "only the lost pod was replaced"
    resumed = [int(step) for step in re.findall(r"resumed from step (\d+)", jobs.kubectl("logs", f"{name}-0"))]
    assert resumed, "training resumed"
    assert resumed[0] >= saved, "from the newest checkpoint"
    assert status["progress"]["percent"] == 100
    assert status["metrics"]["evalLoss"] < 7.0, "an untrained model of 2048 tokens has 7.6"

    run_uninterrupted(jobs, f"{name}-uninterrupted")
    interrupted, uninterrupted = loss_curve(jobs, name, tmp_path), loss_curve(jobs, f"{name}-uninterrupted", tmp_path)
    assert interrupted.keys() == uninterrupted.keys()
    assert interrupted == pytest.approx(uninterrupted, rel=1e-3)

    _check_model_loads(jobs, status["model"], tmp_path)


def _check_loss_in_prometheus(jobs: Jobs, name: str) -> None:
    """Check that the loss of a step in Prometheus is the loss that the trainer logged for this step."""
    labels = f'{{namespace="{jobs.namespace}",job="{name}"}}'
    scraped: dict[int, float] = {}
    logged: dict[int, float] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        step = query(jobs.cluster, f"finetune_step{labels}")
        loss = query(jobs.cluster, f"finetune_loss{labels}")
        # Step and loss belong together only if there was no scrape between the two queries.
        if step and loss and query(jobs.cluster, f"finetune_step{labels}")[0]["value"][1] == step[0]["value"][1]:
            scraped[int(step[0]["value"][1])] = float(loss[0]["value"][1])
        logged = logged_losses(jobs.kubectl("logs", f"{name}-0"))
        if both := scraped.keys() & logged.keys():
            assert {step: scraped[step] for step in both} == pytest.approx({step: logged[step] for step in both}, abs=1e-3)
            return
        time.sleep(0.2)
    raise AssertionError(f"Prometheus has the steps {sorted(scraped)}, the log has {sorted(logged)}")


def _check_model_loads(jobs: Jobs, uri: str, folder: Path) -> None:
    """Check that the text-generation pipeline of transformers continues a prompt with the exported model."""
    from transformers import pipeline

    model = folder / "model"
    jobs.store(uri, folder / "keys").download_folder(model)
    [answer] = pipeline("text-generation", model=str(model), device="cpu")("def ", max_new_tokens=8)
    assert answer["generated_text"].startswith("def ")
    assert len(answer["generated_text"]) > len("def ")


def test_fine_tunes_model_from_s3_with_lora_on_two_nodes(jobs: Jobs, tmp_path: Path) -> None:
    """The exported model of one job is the base model of the next; ZeRO-3, JSON lines, merged adapters."""
    base, tuned = STORAGE.format(name="lora-base"), STORAGE.format(name="lora")
    for storage in (base, tuned):
        jobs.delete_objects(storage, tmp_path)
    jobs.apply(tiny("lora-base", base, steps=10))
    rows = [json.dumps({"prompt": f"{number} + 1 =", "code": f"{number} + 1 = {number + 1}"}) for number in range(200)]
    jobs.store(tuned, tmp_path).put("data/sums.jsonl", "\n".join(rows).encode())
    jobs.wait_for_phase("lora-base", "Succeeded", seconds=180)

    job = tiny("lora", tuned, nodes=2, steps=20)
    job["spec"] |= {
        "model": {"source": f"{base}/model", "credentials": SECRET},
        "data": {
            "train": [{"source": f"{tuned}/data/*.jsonl", "credentials": SECRET, "columns": {"text": "code"}}],
            "maxLength": 64,
        },
        "method": {"type": "LoRA", "lora": {"rank": 4}},
        "deepspeed": {"zeroStage": 3},
    }
    jobs.apply(job)
    status = jobs.wait_for_phase("lora", "Succeeded", seconds=240)
    assert status["progress"]["step"] == 20
    _check_model_loads(jobs, status["model"], tmp_path)


def test_helm_test_passes(jobs: Jobs) -> None:
    output = jobs.cluster.helm("test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=180s")
    assert re.search(rf"TEST SUITE:\s+{RELEASE}-test\b", output)
    assert re.search(r"Phase:\s+Succeeded", output)
