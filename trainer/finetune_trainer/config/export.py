"""The exported model."""

from __future__ import annotations

from pydantic import Field

from finetune_trainer.config.base import SecretName, Section, WritableURI


class ExportConfig(Section):
    """The finished model, as a folder that transformers.pipeline() loads."""

    storage: WritableURI | None = Field(
        None, description="Where the model is stored; by default the folder model in checkpoint.storage."
    )
    credentials: SecretName | None = Field(
        None, description="The Secret for export.storage; by default that of checkpoint.credentials."
    )
    merge_adapters: bool = Field(
        True, description="Whether adapters are merged into the weights; if false, the folder holds only the adapter."
    )
    best: bool = Field(
        False,
        description="Export the model that was best in evaluation.metric instead of the last one. Each new best model is "
        "checkpointed, and its checkpoint is kept in addition to the last ones.",
    )
