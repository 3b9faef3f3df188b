"""The whole road: a sample applied with kubectl becomes a model that pipeline() loads, over the loss of a pod on the way."""

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

INSTALLED_BY = "helm"
STORAGE = "s3://finetune/{name}"


def query(cluster: Any, expression: str) -> list[dict[str, Any]]:
    """What the real Prometheus answers to an instant query."""
    url = f"{cluster.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as response:
        return list(json.load(response)["data"]["result"])


def logged_losses(log: str) -> dict[int, float]:
    """Loss by step, out of the log lines that rank 0 writes."""
    return {int(step): float(loss) for step, loss in re.findall(r"step (\d+)/\d+\b.*?\bloss ([0-9.]+)", log)}


def curve(jobs: Jobs, name: str, folder: Path) -> dict[int, float]:
    """Loss by step, out of the history beside the exported model."""
    history = jobs.store(STORAGE.format(name=name), folder).get("model/training/history.jsonl").decode()
    points = [json.loads(line) for line in history.splitlines()]
    return {point["step"]: point["loss"] for point in points if point.get("loss") is not None}


def run_undisturbed(jobs: Jobs, name: str) -> None:
    """The sample under another name, from start to end."""
    document = sample("pretrain-stdlib", checkpoint={"storage": STORAGE.format(name=name)})
    document["metadata"]["name"] = name
    jobs.apply(document)
    jobs.wait_for_phase(name, "Succeeded", seconds=600)


@pytest.mark.timeout(1500)
def test_sample_trains_survives_a_lost_pod_and_leaves_a_model(jobs: Jobs, tmp_path: Path) -> None:
    """The issue's own story, told once on two nodes with ZeRO-2."""
    name = "pretrain-stdlib"
    for place in (name, f"{name}-calm"):
        jobs.empty(STORAGE.format(name=place), tmp_path)  # a job resumes from what an earlier test session left there
    jobs.apply(sample(name))
    jobs.wait_for_step(name, 10, seconds=300)

    pods = jobs.pods(name)
    assert set(pods) == {f"{name}-0", f"{name}-1"}
    assert len({pod["spec"]["nodeName"] for pod in pods.values()}) == 2, "one pod a node"
    table = jobs.kubectl("get", "ftj")
    assert re.search(rf"{name}\s+Running\s+\d+\s+\d+\s+[0-9.]+\s+\S+\s+2/2\s+0\s", table), table

    _prometheus_agrees_with_the_log(jobs, name)

    jobs.wait(name, "a checkpoint", lambda status: (status.get("checkpoint") or {}).get("step", 0) >= 20)
    saved = jobs.status(name)["checkpoint"]["step"]
    jobs.kubectl("delete", "pod", f"{name}-1", "--grace-period=0", "--force")
    status = jobs.wait(name, "its restart", lambda status: (status.get("restarts") or {}).get("total", 0) >= 1)
    assert status["restarts"]["disruptions"] == 1
    assert status["restarts"]["failures"] == 0, "a deleted pod spends no budget"
    status = jobs.wait_for_phase(name, "Succeeded", seconds=600)
    first = jobs.pods(name)[f"{name}-0"]
    assert first["metadata"]["uid"] == pods[f"{name}-0"]["metadata"]["uid"], "only the lost pod was replaced"
    resumed = [int(step) for step in re.findall(r"resumed from step (\d+)", jobs.kubectl("logs", f"{name}-0"))]
    assert resumed, "training resumed"
    assert resumed[0] >= saved, "from the newest checkpoint"
    assert status["progress"]["percent"] == 100
    assert status["metrics"]["evalLoss"] < 5.0, "an untrained model of 2048 tokens has 7.6"

    run_undisturbed(jobs, f"{name}-calm")
    disturbed, calm = curve(jobs, name, tmp_path), curve(jobs, f"{name}-calm", tmp_path)
    assert disturbed.keys() == calm.keys()
    assert disturbed == pytest.approx(calm, rel=1e-3)

    _model_loads(jobs, status["model"], tmp_path)


def _prometheus_agrees_with_the_log(jobs: Jobs, name: str) -> None:
    """The loss of a step, asked of Prometheus, is the loss that the trainer logged for that step."""
    labels = f'{{namespace="{jobs.namespace}",job="{name}"}}'
    seen: dict[int, float] = {}
    logged: dict[int, float] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        step = query(jobs.cluster, f"finetune_step{labels}")
        loss = query(jobs.cluster, f"finetune_loss{labels}")
        # Two queries: only when no scrape came between them do their answers belong together.
        if step and loss and query(jobs.cluster, f"finetune_step{labels}")[0]["value"][1] == step[0]["value"][1]:
            seen[int(step[0]["value"][1])] = float(loss[0]["value"][1])
        logged = logged_losses(jobs.kubectl("logs", f"{name}-0"))
        if both := seen.keys() & logged.keys():
            assert {step: seen[step] for step in both} == pytest.approx({step: logged[step] for step in both}, abs=1e-3)
            return
        time.sleep(0.2)
    raise AssertionError(f"Prometheus saw the steps {sorted(seen)}, the log has {sorted(logged)}")


def _model_loads(jobs: Jobs, uri: str, folder: Path) -> None:
    """The exported model continues a prompt through transformers' own pipeline."""
    from transformers import pipeline

    model = folder / "model"
    jobs.store(uri, folder / "keys").download_folder(model)
    [answer] = pipeline("text-generation", model=str(model), device="cpu")("def ", max_new_tokens=8)
    assert answer["generated_text"].startswith("def ")
    assert len(answer["generated_text"]) > len("def ")


def test_model_and_data_in_s3_are_fine_tuned_with_lora_on_two_nodes(jobs: Jobs, tmp_path: Path) -> None:
    """What one job leaves in S3 is what the next one starts from; ZeRO-3, rows of JSON lines, adapters merged at the end."""
    base, tuned = STORAGE.format(name="lora-base"), STORAGE.format(name="lora")
    for place in (base, tuned):
        jobs.empty(place, tmp_path)
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
    _model_loads(jobs, status["model"], tmp_path)
