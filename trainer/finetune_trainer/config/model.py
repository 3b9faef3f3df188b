"""The model, its tokenizer and its starting weights."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetune_trainer.config.base import FreeForm, ReadableURI, Rule, SecretName, Section


class TokenizerTrainingConfig(Section):
    """A byte-level BPE tokenizer trained on the job's own training data (Sennrich et al. 2016; Radford et al. 2019)."""

    vocab_size: int = Field(8192, ge=300, le=1_000_000, description="Size of the vocabulary, including special tokens.")


class TokenizerConfig(Section):
    """The tokenizer, if it is not the model's own: from another source, or trained on the data."""

    source: ReadableURI | None = None
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    credentials: SecretName | None = None
    train: TokenizerTrainingConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.source) != has(self.train)",
            "exactly one of source (an existing tokenizer) and train (a new tokenizer) is needed: set one of them",
        ),
    )


class ModelConfig(Section):
    """The model: any architecture that transformers' Auto classes support."""

    source: ReadableURI | None = None
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    credentials: SecretName | None = None
    initialization: Literal["Pretrained", "Scratch"] = Field(
        "Pretrained", description="Pretrained starts from the weights at source, Scratch from random weights."
    )
    config: FreeForm = Field(
        default_factory=dict,
        description="transformers configuration: with Scratch and no source the complete one (model_type is required), "
        "otherwise fields that override those of the source, such as its dropout (BERT: hidden_dropout_prob and "
        "attention_probs_dropout_prob; Llama: attention_dropout).",
    )
    tokenizer: TokenizerConfig | None = None
    attention: Literal["Auto", "Eager", "SDPA", "FlashAttention2"] = Field(
        "Auto", description="Attention implementation; Auto lets transformers choose."
    )
    trust_remote_code: bool = Field(
        False,
        description="Whether the trainer may run code from an hf:// model's repository. Enable it only for code that you have "
        "read.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.initialization != 'Pretrained' || has(self.source)",
            "initialization Pretrained needs weights: set model.source, or initialization: Scratch",
            "source",
        ),
        Rule(
            "self.initialization == 'Scratch' || !has(self.tokenizer) || !has(self.tokenizer.train)",
            "pretrained weights need their own vocabulary: remove model.tokenizer.train, or set initialization: Scratch",
            "tokenizer.train",
        ),
    )

    @model_validator(mode="after")
    def _require_architecture(self) -> Self:
        # CEL cannot read free-form fields, so the API server does not check this rule.
        if self.source is None and "model_type" not in self.config:
            raise ValueError("config.model_type is required without a source: add one, such as model_type: llama")
        return self
