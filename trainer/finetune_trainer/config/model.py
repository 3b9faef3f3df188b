"""Which model is trained, and where it starts from."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetune_trainer.config.base import FreeForm, ReadableURI, Rule, SecretName, Section


class TokenizerTrainingConfig(Section):
    """A byte-level BPE tokenizer trained on the job's own training data (Sennrich et al. 2016; Radford et al. 2019)."""

    vocab_size: int = Field(8192, ge=300, le=1_000_000, description="Entries of the vocabulary, special tokens included.")


class TokenizerConfig(Section):
    """Where the tokenizer comes from: somewhere else than the model, or out of the data."""

    source: ReadableURI | None = None
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    credentials: SecretName | None = None
    train: TokenizerTrainingConfig | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.source) != has(self.train)",
            "give either source (an existing tokenizer) or train (a new one from the data), not both and not neither",
        ),
    )


class ModelConfig(Section):
    """The model, by transformers' Auto classes: any architecture that they know."""

    source: ReadableURI | None = None
    revision: str | None = Field(None, max_length=128, description="Branch, tag or commit of an hf:// source.")
    credentials: SecretName | None = None
    initialization: Literal["Pretrained", "Scratch"] = Field(
        "Pretrained", description="Pretrained starts from the weights at source; Scratch from random weights."
    )
    config: FreeForm = Field(
        default_factory=dict,
        description="transformers configuration: with Scratch and no source the whole of it (model_type is required), "
        "otherwise fields that override the source's, such as its dropout (BERT: hidden_dropout_prob and "
        "attention_probs_dropout_prob; Llama: attention_dropout).",
    )
    tokenizer: TokenizerConfig | None = None
    attention: Literal["Auto", "Eager", "SDPA", "FlashAttention2"] = Field(
        "Auto", description="Attention implementation; Auto lets transformers choose."
    )
    trust_remote_code: bool = Field(
        False,
        description="Whether code shipped with an hf:// model may run in the trainer. Leave it off unless you read it.",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.initialization != 'Pretrained' || has(self.source)",
            "initialization Pretrained needs the weights: set model.source, or initialization: Scratch",
            "source",
        ),
        Rule(
            "self.initialization == 'Scratch' || !has(self.tokenizer) || !has(self.tokenizer.train)",
            "pretrained weights keep their own vocabulary: remove model.tokenizer.train, or set initialization: Scratch",
            "tokenizer.train",
        ),
    )

    @model_validator(mode="after")
    def _architecture_is_known(self) -> Self:
        # Free-form fields are out of CEL's reach, so this one rule is Python's alone.
        if self.source is None and "model_type" not in self.config:
            raise ValueError("config.model_type is required when there is no source: add one, e.g. model_type: llama")
        return self
