"""Measures this node, in a process of its own, so that the agent holds no memory of a GPU:

    python -m finetune_trainer.agent.node_benchmark --node 0 --nodes 2 --devices 8 --master HOST:PORT

writes each measurement to standard output as soon as it is known, as `preflight.DeviceMeasurement` or
`preflight.PairMeasurement` in JSON, one a line. Each is the best of several tries, because other work on the machine only makes
it worse.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from finetune_trainer.agent.preflight import DeviceMeasurement, PairMeasurement
from finetune_trainer.protocol.gloo_interface import choose_gloo_interface

CHECKED_SIZE = 1024
MEASURED_SECONDS = 0.5
PAIR_BYTES, PAIR_TRIES, LATENCY_TRIES = 2**24, 3, 20
PAIR_TIMEOUT = timedelta(seconds=20)


def measure_device(device: torch.device) -> DeviceMeasurement:
    """Speed and correctness of one device."""
    on_gpu = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if on_gpu else (512, torch.float32)
    left, right = _integers(size, 1).to(device, dtype), _integers(size, 2).to(device, dtype)
    first = left @ right
    is_exact = _is_exact(device)

    def multiply() -> None:
        nonlocal is_exact
        # Sums of these integers are exact in float32, whatever their order, so that every product has the same bits.
        is_exact = is_exact and torch.equal(left @ right, first)

    source = torch.zeros((2**30 if on_gpu else 2**26), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return DeviceMeasurement(
        device=device.index or 0,
        teraflops=2 * size**3 / _best_seconds(device, multiply) / 1e12,
        memory_bandwidth=2 * source.numel() / _best_seconds(device, lambda: target.copy_(source)) / 1e9,
        is_exact=is_exact,
    )


def measure_pairs(node: int, nodes: int) -> Iterator[PairMeasurement]:
    """Bandwidth and latency to each other node, in rounds in which every node has one partner."""
    for partner in partners(node, nodes):
        try:
            yield _measure_pair(node, partner)
        except RuntimeError:  # a timeout, or a lost connection: there is no measurement
            continue


def partners(node: int, nodes: int) -> list[int]:
    """The partner of a node in each round of a round-robin tournament; the circle method, in which one place stands still."""
    places = nodes + nodes % 2  # a node whose partner is the place without a node has a break
    last, result = places - 1, []
    for number in range(places - 1):
        if node == last:
            partner = number * (places // 2) % last  # its opponent meets itself otherwise
        else:
            partner = (number - node) % last
            if partner == node:
                partner = last
        if partner < nodes:
            result.append(partner)
    return result


def _integers(size: int, seed: int) -> torch.Tensor:
    """A square matrix of integers from -8 to 8."""
    return torch.randint(-8, 9, (size, size), generator=torch.Generator().manual_seed(seed)).float()


def _is_exact(device: torch.device) -> bool:
    """Whether a product of integers is that of the CPU in float64, which is exact."""
    left, right = _integers(CHECKED_SIZE, 3), _integers(CHECKED_SIZE, 4)
    product = (left.to(device) @ right.to(device)).cpu()
    return torch.equal(product.double(), left.double() @ right.double())


def _best_seconds(device: torch.device, work: Callable[[], object]) -> float:
    best, end = float("inf"), time.monotonic() + MEASURED_SECONDS
    while time.monotonic() < end or best == float("inf"):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def _measure_pair(node: int, partner: int) -> PairMeasurement:
    seconds = min(_exchange(node, partner, PAIR_BYTES) for _ in range(1 + PAIR_TRIES))
    latency = min(_exchange(node, partner, 1) for _ in range(LATENCY_TRIES)) / 2
    return PairMeasurement(peer=partner, bandwidth=2 * PAIR_BYTES / seconds / 1e9, latency_seconds=latency)


def _exchange(node: int, partner: int, size: int) -> float:
    """Seconds to send so many bytes to the partner and to get them back, or the other way round."""
    content = torch.zeros(size, dtype=torch.uint8)
    started = time.perf_counter()
    if node < partner:
        dist.send(content, partner)
        dist.recv(content, partner)
    else:
        dist.recv(content, partner)
        dist.send(content, partner)
    return time.perf_counter() - started


def main() -> int:
    """Measure the devices, then the network."""
    parser = argparse.ArgumentParser(description="Measure this node.")
    parser.add_argument("--node", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--master", required=True, metavar="HOST:PORT")
    options = parser.parse_args()
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices = [torch.device("cuda", index) for index in range(options.devices)]
    for device in devices:
        print(measure_device(device).model_dump_json(by_alias=True), flush=True)
    if options.nodes > 1:
        choose_gloo_interface(options.master.rpartition(":")[0])
        dist.init_process_group(
            "gloo", init_method=f"tcp://{options.master}", rank=options.node, world_size=options.nodes, timeout=PAIR_TIMEOUT
        )
        for measurement in measure_pairs(options.node, options.nodes):
            print(measurement.model_dump_json(by_alias=True), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
