"""Compute resources of a container."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from finetune_trainer.config.base import Section

Quantity = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
GPU_RESOURCE = re.compile(r"(nvidia|amd)\.com/(gpu|mig-).*|gpu\.intel\.com/.*")
"""The resource names of device plugins for GPUs, of parts of a GPU and of shared ones."""


class Resources(Section):
    """Compute resources of one pod, including `nvidia.com/gpu`."""

    requests: dict[str, Quantity] = Field(
        default_factory=dict, description="Resources the scheduler reserves, such as cpu: 4 or memory: 16Gi."
    )
    limits: dict[str, Quantity] = Field(
        default_factory=dict, description="Maximum resources; GPUs are requested here, such as nvidia.com/gpu: 8."
    )

    @property
    def gpus(self) -> int:
        """The number of GPUs, or parts of GPUs, that one pod requests."""
        count = 0
        for name, quantity in (self.requests | self.limits).items():
            if GPU_RESOURCE.fullmatch(name):
                # The API server rejects a pod whose number of GPUs is not whole.
                count += int(quantity) if str(quantity).isdecimal() else 1
        return count
