"""The observed state: missing Secrets and reported progress."""

from __future__ import annotations

from tests.support.fake_kubernetes import KEY, ReconcilerHarness, start_job

from finetune_trainer.protocol.outcome import Progress, RunStatus


async def test_reports_missing_secret_until_it_exists() -> None:
    harness = ReconcilerHarness()
    body = harness.client.put_job()
    body["spec"]["checkpoint"]["credentials"] = "s3"
    harness.sync_cache()
    assert await harness.reconcile() == 10
    assert harness.client.pod_names() == []
    assert "spec.checkpoint.credentials: the Secret 's3' does not exist" in harness.condition("PodsReady")["message"]
    harness.client.secrets.add("s3")
    await harness.reconcile()
    assert sorted(harness.client.pod_names()) == ["j-0", "j-1"]


async def test_ignores_progress_of_replaced_pod() -> None:
    harness = await start_job()
    harness.make_ready("j-0", "j-1")
    run = RunStatus(activity="Training", progress=Progress(step=9, total_steps=10))
    harness.states.record_run(harness.cache.jobs[KEY], "uid of a replaced pod", run)
    await harness.reconcile()
    assert "progress" not in harness.status()
