"""Which nodes fail the preflight check, from the measurements of all nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetune_trainer.agent.node_benchmark import measure_device, partners
from finetune_trainer.agent.preflight import DeviceMeasurement, NodeMeasurement, PairMeasurement, failing_nodes, parse_output
from finetune_trainer.config.preflight import PreflightConfig


def nodes(
    teraflops: list[float], memory: list[float] | None = None, speeds: dict[tuple[int, int], float] | None = None,
    inexact: tuple[int, ...] = (),
) -> list[NodeMeasurement]:  # fmt: skip
    """Nodes of one device; `speeds` has the bandwidth of each pair that was measured."""
    result = []
    for index, value in enumerate(teraflops):
        bandwidth = memory[index] if memory else 10.0
        device = DeviceMeasurement(
            device=0, teraflops=value, memory_bandwidth=bandwidth, is_exact=index not in inexact
        )  # fmt: skip
        pairs = []
        for pair, speed in (speeds or {}).items():
            if index in pair:
                pairs.append(PairMeasurement(peer=sum(pair) - index, bandwidth=speed, latency_seconds=1e-4))
        result.append(NodeMeasurement(devices=[device], pairs=pairs))
    return result


@pytest.mark.parametrize(
    ("measured", "config", "expected"),
    [
        pytest.param(nodes([1.0, 0.9, 0.6]), {}, {}, id="above half of the median"),
        pytest.param(nodes([1.0]), {}, {}, id="nothing to compare with"),
        pytest.param(
            nodes([1.0, 0.4]), {},
            {1: "matrix products of 0.4 TFLOP/s are below 0.5 of the median of the others, 1 TFLOP/s"},
            id="the slower one of two",
        ),
        pytest.param(
            nodes([1.0, 1.0, 1.0], memory=[3.0, 10.0, 12.0]), {},
            {0: "memory copies of 3 GB/s are below 0.5 of the median of the others, 11 GB/s"},
            id="slow memory",
        ),
        pytest.param(nodes([1.0, 0.4]), {"minimumRatio": 0.3}, {}, id="another ratio"),
        pytest.param(nodes([1.0, 1.0], inexact=(1,)), {}, {1: "device 0 computes wrong matrix products"}, id="wrong results"),
        pytest.param(
            nodes([1.0, 1.0]), {"minimumTeraflops": 2.0},
            dict.fromkeys((0, 1), "matrix products of 1 TFLOP/s are below the minimum of 2 TFLOP/s"),
            id="all below a minimum",
        ),
        pytest.param(
            [*nodes([1.0, 1.0]), NodeMeasurement(has_ended=False)], {"timeoutSeconds": 60},
            {2: "only 0 of 1 devices were measured within 60 s"},
            id="not measured in time",
        ),
        pytest.param(
            [*nodes([1.0, 1.0]), NodeMeasurement()], {},
            {2: "only 0 of 1 devices were measured before an error, which is in the log of its pod"},
            id="an error of CUDA",
        ),
        pytest.param(
            nodes([1.0] * 3, speeds={(0, 1): 1.0, (0, 2): 0.1, (1, 2): 0.1}), {},
            {2: "its fastest connection of 0.1 GB/s is below 0.5 of the median of the others, 1 GB/s"},
            id="all connections of a node are slow",
        ),
        pytest.param(
            nodes([1.0] * 4, speeds={(0, 1): 1.0, (0, 2): 1.0, (0, 3): 0.1, (1, 2): 1.0, (1, 3): 1.0, (2, 3): 1.0}), {}, {},
            id="one slow connection is nobody's fault",
        ),
        pytest.param(nodes([1.0] * 2, speeds={(0, 1): 0.1}), {"minimumNetworkBandwidth": 1.0}, {}, id="two nodes share one"),
        pytest.param(
            nodes([1.0] * 3, speeds={(0, 1): 1.0}), {},
            {2: "its fastest connection of 0 GB/s is below 0.5 of the median of the others, 1 GB/s"},
            id="a node without connections",
        ),
        pytest.param(
            nodes([1.0] * 3, speeds={(0, 1): 2.0, (0, 2): 2.0, (1, 2): 1.5}), {"minimumNetworkBandwidth": 1.8}, {},
            id="the fastest connection counts",
        ),
        pytest.param(
            nodes([1.0] * 3, speeds={(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0}), {"minimumNetworkBandwidth": 1.5},
            dict.fromkeys(range(3), "its fastest connection of 1 GB/s is below the minimum of 1.5 GB/s"),
            id="a slow network",
        ),
    ],
)  # fmt: skip
def test_names_the_failing_nodes(measured: list[NodeMeasurement], config: dict[str, Any], expected: dict[int, str]) -> None:
    assert failing_nodes(measured, 1, PreflightConfig.model_validate(config)) == expected


@pytest.mark.parametrize("count", range(1, 10))
def test_each_pair_meets_once_and_nobody_has_two_partners(count: int) -> None:
    for node in range(count):
        assert sorted(partners(node, count)) == [other for other in range(count) if other != node]
    if count % 2 == 0:  # without breaks the position in the list is the round
        for node in range(count):
            for number, partner in enumerate(partners(node, count)):
                assert partners(partner, count)[number] == node


def test_reads_measurements_between_other_lines() -> None:
    [node] = nodes([1.0], speeds={(0, 1): 1.0})
    lines = [measurement.model_dump_json(by_alias=True) for measurement in (*node.devices, *node.pairs)]
    assert parse_output("\n".join(["a warning", lines[0], "{}", lines[1], '{"peer": 2'])) == node


def test_measures_a_device() -> None:
    measured = measure_device(torch.device("cpu"))
    assert measured.is_exact
    assert measured.teraflops > 1e-4
    assert measured.memory_bandwidth > 0.01
