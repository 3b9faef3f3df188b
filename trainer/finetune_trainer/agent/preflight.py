"""Which nodes fail the preflight check: a pure function of the measurements of all nodes, which every agent evaluates alike."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field, TypeAdapter, ValidationError

from finetune_trainer.config.base import Section
from finetune_trainer.config.preflight import PreflightConfig


class DeviceMeasurement(Section):
    """One GPU, or the node's CPUs."""

    device: int
    teraflops: float
    memory_bandwidth: float = Field(description="GB/s, read and written.")
    is_exact: bool = Field(description="Whether a matrix product whose result is known was right each time.")


class PairMeasurement(Section):
    """The network between this node and another one."""

    peer: int
    bandwidth: float = Field(description="GB/s.")
    latency_seconds: float


class NodeMeasurement(Section):
    """The measurements that a node finished in time. `has_ended` is false if it was still measuring then."""

    has_ended: bool = True
    devices: list[DeviceMeasurement] = Field(default_factory=list)
    pairs: list[PairMeasurement] = Field(default_factory=list)


_LINES: TypeAdapter[DeviceMeasurement | PairMeasurement] = TypeAdapter(DeviceMeasurement | PairMeasurement)


def parse_output(text: str) -> NodeMeasurement:
    """The measurements in the output of `node_benchmark`; other lines, such as warnings of libraries, are left out."""
    result = NodeMeasurement()
    for line in text.splitlines():
        try:
            measurement = _LINES.validate_json(line)
        except ValidationError:
            continue
        if isinstance(measurement, DeviceMeasurement):
            result.devices.append(measurement)
        else:
            result.pairs.append(measurement)
    return result


def failing_nodes(nodes: Sequence[NodeMeasurement], devices: int, config: PreflightConfig) -> dict[int, str]:
    """The nodes that fail, and for each a phrase with measure, value and limit. `devices` is the number that a node has."""
    result: dict[int, str] = {}
    for node, problem in _problems(nodes, devices, config):
        result.setdefault(node, problem)
    return result


def _problems(nodes: Sequence[NodeMeasurement], devices: int, config: PreflightConfig) -> Iterator[tuple[int, str]]:
    for index, node in enumerate(nodes):
        if len(node.devices) < devices:
            reason = f"within {config.timeout_seconds} s"
            if node.has_ended:
                reason = "before an error, which is in the log of its pod"
            yield index, f"only {len(node.devices)} of {devices} devices were measured {reason}"
        for device in node.devices:
            if not device.is_exact:
                yield index, f"device {device.device} computes wrong matrix products"
    measured = [node for node in range(len(nodes)) if nodes[node].devices]
    teraflops = {index: min(device.teraflops for device in nodes[index].devices) for index in measured}
    yield from _too_slow(teraflops, "matrix products", "TFLOP/s", config.minimum_teraflops, config)
    memory = {index: min(device.memory_bandwidth for device in nodes[index].devices) for index in measured}
    yield from _too_slow(memory, "memory copies", "GB/s", config.minimum_memory_bandwidth, config)
    if len(nodes) > 2:
        yield from _slow_network(nodes, config)


def _too_slow(
    values: Mapping[int, float], measure: str, unit: str, minimum: float | None, config: PreflightConfig
) -> Iterator[tuple[int, str]]:  # fmt: skip
    for index, value in values.items():
        others = [other for node, other in values.items() if node != index]
        for problem in _shortfalls(value, others, minimum, config.minimum_ratio, unit):
            yield index, f"{measure} of {value:.3g} {unit} are {problem}"


def _slow_network(nodes: Sequence[NodeMeasurement], config: PreflightConfig) -> Iterator[tuple[int, str]]:
    """A node is slow if even its fastest connection is: a slow connection to one node only may be that node's fault."""
    speeds: dict[tuple[int, int], float] = {}
    for index, node in enumerate(nodes):
        for pair in node.pairs:
            key = (min(index, pair.peer), max(index, pair.peer))
            speeds[key] = max(speeds.get(key, 0.0), pair.bandwidth)
    for index in range(len(nodes)):
        fastest = max((speed for pair, speed in speeds.items() if index in pair), default=0.0)
        others = [speed for pair, speed in speeds.items() if index not in pair]
        for problem in _shortfalls(fastest, others, config.minimum_network_bandwidth, config.minimum_ratio, "GB/s"):
            yield index, f"its fastest connection of {fastest:.3g} GB/s is {problem}"


def _shortfalls(value: float, others: Sequence[float], minimum: float | None, ratio: float, unit: str) -> Iterator[str]:
    """What a value is below: the absolute minimum, and the share of the median of the others."""
    if minimum is not None and value < minimum:
        yield f"below the minimum of {minimum:.3g} {unit}"
    if others and value < ratio * (median := statistics.median(others)):
        yield f"below {ratio:g} of the median of the others, {median:.3g} {unit}"
