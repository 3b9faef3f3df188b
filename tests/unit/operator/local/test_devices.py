"""GPUs of the nodes of a local run."""

from __future__ import annotations

import pytest

from finetune_operator.local import devices


@pytest.mark.parametrize(
    ("visible", "nodes", "per_node", "expected"),
    [
        ("0,1,2,3", 2, 2, ["0,1", "2,3"]),
        ("GPU-a,GPU-b", 2, 1, ["GPU-a", "GPU-b"]),
        ("0,1,2,3", 1, 2, ["0,1"]),
        ("0", 2, 1, ["", ""]),
        ("", 2, 1, ["", ""]),
        ("-1", 1, 1, [""]),
    ],
    ids=["two-per-node", "by-uuid", "more-than-needed", "too-few", "none", "disabled"],
)
def test_gives_each_rank_a_gpu_or_none_at_all(visible: str, nodes: int, per_node: int, expected: list[str]) -> None:
    environments = devices.node_environments(nodes, per_node, {"CUDA_VISIBLE_DEVICES": visible})
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == expected
