"""Options for LoRA."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import ReadableURI, Rule, SecretName, Section
from finetune_trainer.config.methods.base import MethodConfig


class AdapterConfig(Section):
    """An adapter that an earlier job stored alone."""

    source: ReadableURI
    credentials: SecretName | None = None


class LoRAConfig(MethodConfig):
    """Low-rank adapters beside frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(16, ge=1, le=4096, description="Rank of each update.")
    alpha: float = Field(32, gt=0, description="Scale of the update: alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter.")
    dora: bool = Field(
        False,
        description="Learn each weight's magnitude apart from its direction, of which the adapter is the update (DoRA, "
        "Liu et al. 2024, arXiv:2402.09353).",
    )
    rank_stabilized: bool = Field(
        False,
        description="Scale the update by alpha / sqrt(rank), so that high ranks learn too (rsLoRA, Kalajdzievski 2023, "
        "arXiv:2312.03732).",
    )
    quantization: Literal["None", "NF4"] = Field(
        "None",
        description="NF4 keeps the frozen weights of linear layers in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).",
    )
    target_modules: list[str] = Field(
        default_factory=list, max_length=256, description="Names of the layers to adapt; all linear layers when empty."
    )
    frozen_adapters: list[AdapterConfig] = Field(
        default_factory=list,
        max_length=16,
        description="Adapters of earlier jobs on the same model, exported with mergeAdapters: false, which stay as they are "
        "beside the new one (progressive networks, Rusu et al. 2016, arXiv:1606.04671); the export has all of them.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.dora || size(self.frozenAdapters) == 0",
            "an adapter with magnitudes does not add up with others: remove dora, or frozenAdapters",
            "dora",
        ),
    )
