"""Time from jobs to running pods, compared with creating the pods directly.

A control plane of its own (etcd, API server, controller manager, scheduler) with default settings runs for the benchmark; kwok
plays the kubelets, so pods run as soon as they are bound. The peer creates the Service and the pods that the operator would
create. Our side creates FineTuneJobs; the operator runs as a separate process with its default settings. Both send the same
number of concurrent requests, and the time is measured from the first request until the last pod is Running.

The operator's requests and processor time are also reported: they depend less on the machine than the rate.

    .venv/bin/python benchmarks/jobs_to_running.py [--jobs 300] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from control_plane import (
    TIMEOUT_SECONDS,
    Api,
    Body,
    Operator,
    Standalone,
    connected,
    control_plane,
    namespace,
    operator,
    peak_mib,
    wait_until,
)
from paired import Benchmark, Figure, Limit, Sample, cpu_seconds

from finetune_operator import builders
from finetune_operator.api import API_VERSION, GROUP, KIND, PLURAL, VERSION, FineTuneJob
from finetune_operator.settings import Settings

PODS_PER_JOB = 2
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}
FIGURES = (
    Figure("pods_per_second", "pods Running, from the first request to the last pod", "pods/s", at_least=0.8),
    Figure("seconds", "time until all pods were Running", "s"),
    Figure("api_server_cpu_ms", "processor time of the API server and etcd per job", "ms"),
)
LIMITS = (
    Limit("writes", "write requests of the operator per job until every status said Running", "requests", at_most=4),
    Limit("operator_cpu_ms", "processor time of the operator per job", "ms", at_most=10),
    Limit("operator_peak_mib", "operator's peak resident memory", "MiB", at_most=300),
)


def document(index: int, namespace_name: str) -> Body:
    """Build a job of two pods."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"job-{index:04d}", "namespace": namespace_name},
        "spec": {
            "model": {"source": "hf://org/model"},
            "data": {"train": [{"source": "s3://bucket/data/*.jsonl"}]},
            "checkpoint": {"storage": f"s3://bucket/job-{index:04d}"},
            "workers": {"nodes": PODS_PER_JOB, "resources": RESOURCES},
        },
    }


class Turn:
    """One measurement in a new namespace."""

    def __init__(self, api: Api, namespace_name: str, jobs: int, pids: Mapping[str, int]) -> None:
        self._api, self.namespace, self._count, self._pids = api, namespace_name, jobs, pids
        self._core = f"/api/v1/namespaces/{namespace_name}"
        self._jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace_name}/{PLURAL}"
        self._pods = PODS_PER_JOB * jobs
        self._running: dict[str, float] = {}  # time at which each pod was Running
        self._all_running = asyncio.Event()

    async def create_directly(self) -> Sample:
        """Measure the peer: the Service, then all pods concurrently."""
        settings = Settings()  # the defaults, as for the operator
        documents = [FineTuneJob.model_validate(document(index, self.namespace)) for index in range(self._count)]
        pods = [body for job in documents for body in builders.render(job, settings) if body["kind"] == "Pod"]
        service = builders.build_service(self.namespace)

        async def send() -> None:
            await self._api.create(f"{self._core}/services", service)
            await _gather(self._api.create(f"{self._core}/pods", body) for body in pods)

        return await self._measure(send)

    async def create_by_operator(self, operator: Operator, settle: float) -> Sample:
        """Measure our side: create the jobs only."""
        await asyncio.sleep(2)  # until the operator's watches are established
        before, started, cpu = await operator.requests(), time.monotonic(), cpu_seconds(operator.pid)
        sample = await self._measure(
            lambda: _gather(self._api.create(self._jobs, document(index, self.namespace)) for index in range(self._count))
        )
        await wait_until(self._all_statuses_are_running)
        status_seconds, cpu = time.monotonic() - started, cpu_seconds(operator.pid) - cpu
        requests = await operator.requests() - before
        await asyncio.sleep(settle)
        writes = sum(count for request, count in requests.items() if not request.startswith("GET"))
        return sample | {
            "writes": writes / self._count,
            "operator_cpu_ms": 1000 * cpu / self._count,
            "operator_peak_mib": peak_mib(operator.pid),
            "seconds_until_every_status_said_running": status_seconds,
            "requests": dict(requests.most_common()),
        }

    async def _measure(self, send: Callable[[], Awaitable[None]]) -> Sample:
        listed = await self._api.get(f"{self._core}/pods")
        assert listed is not None
        assert not listed["items"], "the namespace is not new"
        watch = asyncio.create_task(self._watch(listed["metadata"]["resourceVersion"]))
        cpu = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
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
        used = {name: cpu_seconds(pid) - cpu[name] for name, pid in self._pids.items()}
        return {
            "seconds": times[-1],
            "pods_per_second": self._pods / times[-1],
            "api_server_cpu_ms": 1000 * (used["kube-apiserver"] + used["etcd"]) / self._count,
            "cpu_seconds": used,
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

    def __init__(self, plane: Standalone, options: argparse.Namespace) -> None:
        self._plane, self._options = plane, options
        self._number = 0

    def peer(self) -> Sample:
        """Create the Service and the pods directly."""
        return asyncio.run(self._measure(lambda turn: turn.create_directly()))

    def ours(self) -> Sample:
        """Create jobs, for which the operator creates pods."""

        async def create(turn: Turn) -> Sample:
            async with operator(self._plane.kubeconfig, turn.namespace) as process:
                return await turn.create_by_operator(process, self._options.settle)

        return asyncio.run(self._measure(create))

    async def _measure(self, side: Callable[[Turn], Awaitable[Sample]]) -> Sample:
        self._number += 1
        namespace_name = f"bench-{os.getpid()}-{self._number}"
        async with (
            connected(self._plane.kubeconfig, self._options.concurrency) as api,
            namespace(api, namespace_name),
        ):
            sample = await side(Turn(api, namespace_name, self._options.jobs, self._plane.pids))
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
        "--settle", type=float, default=10, help="seconds before the peak memory is read (default: %(default)s)"
    )
    benchmark = Benchmark("From jobs to running pods", parser, "kopf", "kubernetes", "pydantic", "aiohttp")
    options = benchmark.config
    with control_plane(options.fake_nodes) as plane:
        sides = Sides(plane, options)
        title = f"{options.jobs} jobs of {PODS_PER_JOB} pods, compared with creating the pods directly"
        benchmark.measure(title, sides.peer, sides.ours, FIGURES, LIMITS, alone=False)
    benchmark.finish()


if __name__ == "__main__":
    main()
