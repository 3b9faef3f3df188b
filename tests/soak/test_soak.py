"""A long run in which something breaks every two minutes: `make soak`, for SOAK_MINUTES (60)."""

from __future__ import annotations

import os
import random
import uuid
from pathlib import Path

import pytest
from tests.support.cluster_fixtures import PROXY_SECRET
from tests.support.cluster_run import CHECKPOINT_EVERY, ClusterRun, document, exported_curve, undisturbed_curve
from tests.support.devcluster.session import Cluster
from tests.support.faulty_proxy import FaultyProxy
from tests.support.installation import namespace
from tests.support.soak import Report, Target, soak

MINUTES = float(os.environ.get("SOAK_MINUTES") or 60)
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(10**6))
INTERVAL = 120.0  # seconds
# Without faults a step takes 0.2 s: a third of the time is for the undisturbed run, the rest for the same run with faults.
STEPS_PER_MINUTE = 100


@pytest.mark.timeout(3 * 60 * MINUTES + 1200)
def test_run_survives_random_faults(operator: Cluster, storage_proxy: FaultyProxy, tmp_path: Path) -> None:
    """Goodput, lost work and false kills are printed; the loss curve equals that of an undisturbed run to the last bit."""
    steps = round(MINUTES * STEPS_PER_MINUTE)
    print(f"seed {SEED}, {steps} steps")
    with namespace(operator, "soak") as jobs:
        jobs.create_secret(PROXY_SECRET, jobs.secret | {"AWS_ENDPOINT_URL": storage_proxy.endpoint})
        expected = undisturbed_curve(jobs, tmp_path, steps)
        uri = f"s3://finetune/faults/{uuid.uuid4().hex[:8]}/soak"
        jobs.apply(document("soak", uri, steps, checkpoint={"credentials": PROXY_SECRET}))
        run = ClusterRun(jobs, "soak", jobs.store(uri, tmp_path), expected)
        run.wait_until_ready()
        report = Report(SEED)
        try:
            soak(
                Target(run, storage_proxy, random.Random(SEED)),
                report,
                interval=INTERVAL,
                last_step=steps - 20 * CHECKPOINT_EVERY,
            )
            jobs.wait_for_phase("soak", "Succeeded", seconds=300)
            report.entries = run.log.update().entries
        finally:
            print(report.text() if report.recoveries else "no fault was injected")
            run.log.close()
        assert exported_curve(run.storage) == expected
        assert report.false_kills == 0
