"""A rank that is slower than the others."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster_run import ClusterRun
from tests.support.devcluster import faults
from tests.support.reliability import Measure

WORK_SECONDS, PAUSE_SECONDS = 0.05, 0.15
METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9400/metrics').read().decode())"


@contextmanager
def slowed(pids: list[int]) -> Iterator[None]:
    """Let processes work for a quarter of the time."""
    is_over = threading.Event()

    def slow_down() -> None:
        while not is_over.wait(WORK_SECONDS):
            faults.send_signal(pids, signal.SIGSTOP)
            time.sleep(PAUSE_SECONDS)
            faults.send_signal(pids, signal.SIGCONT)

    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def stragglers(run: ClusterRun) -> list[int]:
    """The ranks that the status names."""
    return [straggler["rank"] for straggler in run.status().get("stragglers", [])]


def test_slow_rank(run: ClusterRun, measure: Measure) -> None:
    """The rank is named in the status and in a metric while it is slow, and nothing is restarted."""
    pods, restarts, began = run.uids(), run.restarts(), time.monotonic()
    with slowed(run.rank_pids(1)):
        run.wait("rank 1 is named", lambda: stragglers(run) == [1], seconds=150)
        seconds = time.monotonic() - began
        [straggler] = run.status()["stragglers"]
        assert straggler["node"] == 1
        assert straggler["ratio"] >= 1.5
        metrics = run.jobs.kubectl("exec", str(run.pod(0)["metadata"]["name"]), "--", "python", "-c", METRICS)
        samples = re.findall(r'^finetune_straggler_ratio\{.*rank="(\d+)".*\} (\S+)$', metrics, re.MULTILINE)
        assert [rank for rank, _ in samples] == ["1"], metrics
        assert float(samples[0][1]) >= 1.5
    run.wait("no rank is named", lambda: not stragglers(run), seconds=150)
    assert (run.uids(), run.restarts()) == (pods, restarts)
    run.check_curve()
    measure.record(5, "a rank works for a quarter of the time, seconds until it is named", seconds, 0, 0)
