"""Options for Bottleneck."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from finetune_trainer.config.methods.base import MethodConfig


class BottleneckConfig(MethodConfig):
    """Small feed-forward layers beside those of a model that stays as it is (He et al. 2022, arXiv:2110.04366).

    They have the activation function of the layers that they stand beside, so that the export is a plain model whose
    feed-forward layers are wider by their size.
    """

    separable: ClassVar[bool] = False

    size: int = Field(64, ge=1, le=65536, description="Width of each, which the model's feed-forward layers become wider by.")
