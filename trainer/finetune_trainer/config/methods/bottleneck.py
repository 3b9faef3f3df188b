"""Options of Bottleneck."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.methods.base import MethodConfig


class BottleneckConfig(MethodConfig):
    """Small adapters in parallel with the feed-forward layers of a frozen model (He et al. 2022, arXiv:2110.04366).

    They use the activation function of the layer that they run in parallel with, so the export is a plain model whose
    feed-forward layers are wider by `size`.
    """

    supports_adapter_export: ClassVar[bool] = False

    size: int = Field(64, ge=1, le=65536, description="Width of each adapter, which is added to the feed-forward layer's.")
