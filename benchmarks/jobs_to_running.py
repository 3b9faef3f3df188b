"""Time from jobs to running pods, compared with creating the same Services and pods directly.

The pods run on fake nodes (kwok), so the API server, the scheduler and the operator are measured. The control plane has its
default settings. The peer creates the objects that the operator would create. Our side creates FineTuneJobs, and the operator
runs as a separate process. Both sides send the same number of concurrent requests, and the time is measured from the first
request until the last pod is Running. Only our side creates ConfigMaps.

    .venv/bin/python benchmarks/jobs_to_running.py [--jobs 300] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from control_plane import TIMEOUT_SECONDS, Api, Body, connected, fake_nodes, namespace, operator, peak_mib, wait_until
from paired import Benchmark, Figure, Limit, Sample, cpu_seconds

from finetune_operator import builders
from finetune_operator.api import API_VERSION, GROUP, KIND, PLURAL, VERSION, FineTuneJob
from finetune_operator.settings import Settings

PODS_PER_JOB = 2
FIGURES = (
    Figure("pods_per_second", "pods Running, from the first request to the last pod", "pods/s", at_least=0.8),
    Figure("seconds", "time until all pods were Running", "s"),
)
LIMITS = (Limit("operator_peak_mib", "operator's peak resident memory", "MiB", at_most=300),)


def document(index: int, namespace_name: str, template: Body) -> Body:
    """Build a job of two pods."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"job-{index:04d}", "namespace": namespace_name},
        "spec": {
            "model": {"source": "hf://org/model"},
            "data": {"train": [{"source": "s3://bucket/data/*.jsonl"}]},
            "checkpoint": {"storage": f"s3://bucket/job-{index:04d}"},
            "workers": {
                "nodes": PODS_PER_JOB,
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
                "template": template,
            },
        },
    }


class Turn:
    """One measurement in a new namespace."""

    def __init__(self, api: Api, namespace_name: str, documents: list[Body]) -> None:
        self._api, self._documents = api, documents
        self._core = f"/api/v1/namespaces/{namespace_name}"
        self._jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace_name}/{PLURAL}"
        self._pods = PODS_PER_JOB * len(documents)
        self._running: dict[str, float] = {}  # time at which each pod was Running
        self._all_running = asyncio.Event()

    async def create_directly(self) -> Sample:
        """Measure the peer: each Service and then its pods, as the operator creates them, concurrently for all jobs."""
        settings = Settings()  # the defaults, as for the operator
        jobs = [builders.render(FineTuneJob.model_validate(body), settings) for body in self._documents]

        async def create(objects: list[Body]) -> None:
            for kind, path in (("Service", "services"), ("Pod", "pods")):
                bodies = [body for body in objects if body["kind"] == kind]
                await asyncio.gather(*(self._api.create(f"{self._core}/{path}", body) for body in bodies))

        return await self._measure(lambda: _gather(create(objects) for objects in jobs))

    async def create_by_operator(self, kubeconfig: Path, namespace_name: str, settle: float) -> Sample:
        """Measure our side: create the jobs only."""
        async with operator(kubeconfig, namespace_name) as pid:
            await asyncio.sleep(2)  # until its watches are established
            started, cpu = time.monotonic(), cpu_seconds(pid)
            sample = await self._measure(lambda: _gather(self._api.create(self._jobs, body) for body in self._documents))
            cpu = cpu_seconds(pid) - cpu
            await wait_until(self._all_statuses_are_running)
            status_seconds = time.monotonic() - started
            await asyncio.sleep(settle)
            return sample | {
                "operator_peak_mib": peak_mib(pid),
                "operator_cpu_seconds": cpu,
                "seconds_until_every_status_said_running": status_seconds,
            }

    async def _measure(self, send: Callable[[], Awaitable[None]]) -> Sample:
        listed = await self._api.get(f"{self._core}/pods")
        assert listed is not None
        assert not listed["items"], "the namespace is not new"
        watch = asyncio.create_task(self._watch(listed["metadata"]["resourceVersion"]))
        started = time.monotonic()
        try:
            await send()
            sent = time.monotonic() - started
            await asyncio.wait_for(self._all_running.wait(), TIMEOUT_SECONDS)
        except TimeoutError:
            raise SystemExit(
                f"only {len(self._running)} of {self._pods} pods were Running in {TIMEOUT_SECONDS:.0f} s"
            ) from None
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        times = sorted(moment - started for moment in self._running.values())
        return {
            "seconds": times[-1],
            "pods_per_second": self._pods / times[-1],
            "seconds_until_all_requests_were_answered": sent,
            "seconds_until_first_pod": times[0],
            "seconds_until_half_of_the_pods": times[len(times) // 2],
        }

    async def _watch(self, version: str) -> None:
        async for pod in self._api.watch(f"{self._core}/pods", version, fieldSelector="status.phase=Running"):
            self._running.setdefault(pod["metadata"]["name"], time.monotonic())
            if len(self._running) == self._pods:
                self._all_running.set()

    async def _all_statuses_are_running(self) -> bool:
        listed = await self._api.get(self._jobs)
        return listed is not None and all(job.get("status", {}).get("phase") == "Running" for job in listed["items"])


async def _gather(calls: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*calls)


class Sides:
    """Both sides; each measurement gets a new namespace."""

    def __init__(self, kubeconfig: Path, template: Body, options: argparse.Namespace) -> None:
        self._kubeconfig, self._template, self._options = kubeconfig, template, options
        self._number = 0

    def peer(self) -> Sample:
        """Create Services and pods directly."""
        return asyncio.run(self._measure(lambda turn, _: turn.create_directly()))

    def ours(self) -> Sample:
        """Create jobs, for which the operator creates Services, ConfigMaps and pods."""

        def measure_turn(turn: Turn, namespace_name: str) -> Awaitable[Sample]:
            return turn.create_by_operator(self._kubeconfig, namespace_name, self._options.settle)

        return asyncio.run(self._measure(measure_turn))

    async def _measure(self, side: Callable[[Turn, str], Awaitable[Sample]]) -> Sample:
        self._number += 1
        namespace_name = f"bench-{os.getpid()}-{self._number}"
        async with connected(self._kubeconfig, self._options.concurrency) as api, namespace(api, namespace_name):
            documents = [document(index, namespace_name, self._template) for index in range(self._options.jobs)]
            sample = await side(Turn(api, namespace_name, documents), namespace_name)
        # Let the control plane's queues (garbage collector, endpoints) drain before the next turn.
        await asyncio.sleep(self._options.pause)
        return sample


def main() -> None:
    """Measure both sides and check the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300, help="jobs of two pods each (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="concurrent requests of each side (default: %(default)s)")
    parser.add_argument("--fake-nodes", type=int, default=10, help="nodes for the pods (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=15, help="seconds to wait after each turn (default: %(default)s)")
    parser.add_argument(
        "--settle",
        type=float,
        default=10,
        help="seconds to wait before reading the peak memory (default: %(default)s)",
    )
    benchmark = Benchmark("From jobs to running pods", parser, "kopf", "kubernetes", "pydantic", "aiohttp")
    options = benchmark.config
    with fake_nodes(options.fake_nodes) as (kubeconfig, template):
        sides = Sides(kubeconfig, template, options)
        title = f"{options.jobs} jobs of {PODS_PER_JOB} pods, compared with creating the same Services and pods directly"
        benchmark.measure(title, sides.peer, sides.ours, FIGURES, LIMITS, alone=False)
    benchmark.finish()


if __name__ == "__main__":
    main()
