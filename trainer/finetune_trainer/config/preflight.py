"""The check of each node before training. The document has it in `runPolicy.preflight`."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.base import Section


class PreflightConfig(Section):
    """Measures every node before ranks start in a new pod: matrix products, memory and the network between the nodes.

    A node that computes wrongly or is too slow is left, and not used again by this job for a while. `{}` has the defaults.
    """

    minimum_ratio: float = Field(
        0.5, gt=0, lt=1,
        description="A node fails below this share of the median of the other nodes. The network of a single node is judged "
        "with three nodes or more: with two, it is not known which of them is slow.",
    )  # fmt: skip
    minimum_teraflops: float | None = Field(
        None, gt=0, description="Matrix product of one GPU, or of the CPUs of a node without GPUs, in TFLOP/s."
    )
    minimum_memory_bandwidth: float | None = Field(None, gt=0, description="Copies in the memory of one GPU, in GB/s.")
    minimum_network_bandwidth: float | None = Field(
        None, gt=0, description="Over the pods' network to the fastest other node, in GB/s; for three nodes or more."
    )
    timeout_seconds: int = Field(
        120, ge=10, le=3600, description="A node that has not finished its measurements after this time fails."
    )
    avoid_nodes_seconds: int = Field(
        3600, ge=0, le=604800, description="How long no pod of this job is created on a node that failed."
    )
