"""Options of LoRA."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section
from finetune_trainer.config.methods.base import MethodConfig


class AdapterConfig(Section):
    """An adapter that an earlier job exported without the model's weights."""

    source: ReadableURI
    credentials: SecretName | None = None


class LoRAConfig(MethodConfig):
    """Low-rank adapters on a frozen model (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(16, ge=1, le=4096, description="Rank of each update.")
    alpha: float = Field(32, gt=0, description="Numerator of the update's scale, alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    dora: bool = Field(
        False,
        description="Train the magnitude of each weight separately from its direction, to which the adapter is applied (DoRA, "
        "Liu et al. 2024, arXiv:2402.09353).",
    )
    rank_stabilized: bool = Field(
        False,
        description="Scale the update by alpha / sqrt(rank), so that adapters of high rank train well (rsLoRA, Kalajdzievski "
        "2023, arXiv:2312.03732).",
    )
    quantization: Literal["None", "NF4"] = Field(
        "None",
        description="NF4 stores the frozen weights of linear layers in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).",
    )
    target_modules: list[str] = Field(
        default_factory=list, max_length=256, description="Names of the layers that get adapters; if empty, all linear layers."
    )
    frozen_adapters: list[AdapterConfig] = Field(
        default_factory=list,
        max_length=16,
        description="Adapters of earlier jobs on this model, exported with mergeAdapters: false, that stay active and frozen "
        "while the new one is trained (progressive networks, Rusu et al. 2016, arXiv:1606.04671); the export has all of them.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.dora || size(self.frozenAdapters) == 0",
            "DoRA adapters cannot be added to other adapters: remove dora, or frozenAdapters",
            "dora",
        ),
    )
