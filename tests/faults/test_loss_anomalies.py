"""A loss that rises far above the losses before it."""

from __future__ import annotations

import json
import random
import uuid
from pathlib import Path

from tests.support.cluster_jobs import SECRET, Jobs, tiny
from tests.support.reliability import Measure

ROWS, STRANGE = 200, 120
STEPS = 200  # four passes


def test_spike(jobs: Jobs, measure: Measure, tmp_path: Path) -> None:
    """A row that is nothing like the others: its steps are skipped, the row is named, and the run completes."""
    storage = f"s3://finetune/faults/{uuid.uuid4().hex[:8]}"
    rows = ["the quick brown fox jumps over the lazy dog " * 3] * ROWS
    rows[STRANGE - 1] = " ".join(str(random.Random(1).random()) for _ in range(20))
    lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
    jobs.store(storage, tmp_path).put("data/rows.jsonl", lines.encode())
    job = tiny(
        "spike", storage, steps=STEPS,
        data={"train": [{"source": f"{storage}/data/*.jsonl", "credentials": SECRET}], "packing": False},
        training={"lossAnomaly": {"action": "SkipStep", "spikeRatio": 4}},
    )  # fmt: skip
    status = jobs.wait_for_phase(jobs.apply(job), "Succeeded", seconds=300)
    anomalies = status["lossAnomalies"]
    assert 1 <= anomalies["skippedSteps"] <= 4, anomalies
    assert f"rows.jsonl:{STRANGE}" in anomalies["message"]
    assert "times the median" in anomalies["message"]
    assert (status["restarts"]["total"], status["progress"]["step"]) == (0, STEPS)
    measure.record(12, "a row makes the loss spike, the step is skipped", None, 0, 0)
