"""Match a text with its pair among those of all other rows of the step.

With pairs it is SBERT's multiple negatives ranking (Henderson et al. 2017, arXiv:1705.00652; Reimers & Gurevych 2019,
arXiv:1908.10084); with each text as its own pair, under other dropout, SimCSE (Gao et al. 2021, arXiv:2104.08821).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
import torch
from torch.nn import functional
from transformers import AutoModel

from finetune_trainer.config.objectives.text_contrastive import TextContrastiveConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, Tokens, document_lengths
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.base import Collator, Encoder, ModelSetup, Objective, ObjectiveContext
from finetune_trainer.objectives.description import Block, row_block
from finetune_trainer.objectives.inputs.tokenization import (
    encoding_fingerprint,
    run_on_short_texts,
    special_tokens,
    tokenize,
)
from finetune_trainer.objectives.losses.contrastive import Comparison, ContrastiveLoss, Views
from finetune_trainer.objectives.metrics.retrieval import RetrievalMetrics
from finetune_trainer.protocol.outcome import ConfigurationError

TEXT, PAIR, NEGATIVE = VIEWS = range(3)
VIEW_NAMES = ("text", "pair", "negative")
SENTENCE_TRANSFORMERS_POOLING = {"Mean": "mean_tokens", "CLS": "cls_token", "LastToken": "lasttoken"}


class TextContrastive(Objective):
    """Cross entropy of a text's pair among the pairs and negatives of all rows of the step.

    A batch has the inputs `input_ids` and `attention_mask` [sequences, tokens], the texts of all rows, then their pairs, then
    the negatives, and the target `views` [sequences]: which of these a sequence is, -100 for none.
    """

    @classmethod
    def assemble(cls, config: TextContrastiveConfig, context: ObjectiveContext, processor: Any) -> Self:
        return cls(
            encoder=TextPairEncoder(processor, context),
            collator=TextPairCollator(processor, config),
            model_setup=TextContrastiveSetup(config=config, max_length=context.max_length),
            loss=RankingLoss(config),
            metrics=RetrievalMetrics(),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The text, its pair, and its negative if there is one."""
        return [
            row_block(VIEW_NAMES[view], batch, row, self.processor) for row, view in enumerate(batch.targets["views"].tolist())
        ]


class TextPairEncoder(Encoder):
    """A text, its pair, and its negative where there is one, each with special tokens, one after the other."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32()), LENGTHS: pyarrow.list_(pyarrow.int32())})

    def __init__(self, processor: Any, context: ObjectiveContext) -> None:
        super().__init__(processor, context)
        self.special_tokens = special_tokens(processor)

    @property
    def fingerprint(self) -> Any:
        return encoding_fingerprint(self.processor, self.context)

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text that is too long is truncated at its end."""
        max_length = self.context.max_length
        row_texts = [_texts_of(row) for row in rows]
        tokenized = iter(tokenize([text for texts in row_texts for text in texts], self.processor))
        for texts in row_texts:
            sequences = [next(tokenized) for _ in texts]
            if not all(text.strip() for text in texts):
                yield EncodedRow([], EncodeStatus.EMPTY)
            elif all(len(tokens) <= max_length for tokens in sequences):
                yield EncodedRow([_join(sequences)], EncodeStatus.KEPT)
            elif self.context.overlong == "Drop":
                yield EncodedRow([], EncodeStatus.DROPPED)
            else:
                truncated = [self.special_tokens.truncate(tokens, max_length) for tokens in sequences]
                yield EncodedRow([_join(truncated)], EncodeStatus.TRUNCATED)


def _texts_of(row: Row) -> list[str]:
    """The text, its pair (or itself), and its negative where there is one."""
    text, negative = row.values["text"], row.values.get("negative")
    texts = [text, row.values.get("text_pair", text)]
    if negative:
        texts.append(negative)
    return texts


def _join(sequences: Sequence[Tokens]) -> Mapping[str, Any]:
    return {TOKENS: np.concatenate(sequences), LENGTHS: [len(tokens) for tokens in sequences]}


class TextPairCollator(Collator):
    """Pads at the right."""

    def __init__(self, tokenizer: Any, config: TextContrastiveConfig) -> None:
        self.tokenizer = tokenizer
        self.terms_per_row = 2 if config.symmetric else 1

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """All texts as one batch, so that the model is called once."""
        sample_texts = [np.split(sample[TOKENS], np.cumsum(document_lengths(sample))[:-1]) for sample in samples]
        sequences, views = [], []
        for view in VIEWS:
            for texts in sample_texts:
                if view < len(texts):
                    sequences.append({TOKENS: texts[view]})
                    views.append(view)
        batch = collate(sequences, self.tokenizer.pad_token_id, layout)
        batch.targets["views"] = torch.tensor(views or [IGNORE_INDEX])
        return batch

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """One for each row and, if symmetric, one more for the other direction."""
        return [int((batch.targets["views"] == TEXT).sum()) * self.terms_per_row]


@dataclass(kw_only=True)
class TextContrastiveSetup(ModelSetup):
    """A model that embeds texts."""

    config: TextContrastiveConfig
    max_length: int
    pipeline_task: str = "feature-extraction"
    auto_class: Any = AutoModel
    peft_task_type: str | None = "FEATURE_EXTRACTION"
    has_new_head: bool = True  # some families have a pooler, which is not used here and often missing
    embedding_width: int | None = None
    """Known once the model is prepared."""

    def config_overrides(self) -> dict[str, Any]:
        """No key-value cache, as a decoder does not continue the texts."""
        return {"use_cache": False}

    def prepare(self, model: Any, group: ProcessGroup) -> None:
        """Raises ConfigurationError for a model without token embeddings, or without the dropout that distinguishes views."""
        states = run_on_short_texts(model, "last_hidden_state", "use an encoder such as BERT, or a causal language model")
        if self.config.unsupervised and torch.equal(states[0], states[1]):
            raise ConfigurationError(
                "spec.objective.textContrastive.unsupervised: this model has no dropout, so both views of a text are the same: "
                "set its dropout in spec.model.config, or give pairs"
            )
        self.embedding_width = states.shape[-1]

    def extra_files(self) -> dict[str, Any]:
        """The files with which sentence-transformers embeds texts in the same way."""
        assert self.embedding_width is not None, "prepare the model first: its width is part of the files"
        modules = ["Transformer", "Pooling"]
        if self.config.normalize:
            modules.append("Normalize")
        module_list = []
        for index, module in enumerate(modules):
            path = f"{index}_{module}" if index else ""
            module_type = f"sentence_transformers.models.{module}"
            module_list.append({"idx": index, "name": str(index), "path": path, "type": module_type})
        pooling: dict[str, Any] = {"word_embedding_dimension": self.embedding_width}
        for choice, name in SENTENCE_TRANSFORMERS_POOLING.items():
            pooling[f"pooling_mode_{name}"] = choice == self.config.pooling
        return {
            "modules.json": module_list,
            "sentence_bert_config.json": {"max_seq_length": self.max_length, "do_lower_case": False},
            "config_sentence_transformers.json": {"similarity_fn_name": "cosine" if self.config.normalize else "dot"},
            "1_Pooling/config.json": pooling,
        }


class RankingLoss(ContrastiveLoss):
    """Multiple negatives ranking, in float32."""

    def __init__(self, config: TextContrastiveConfig) -> None:
        self.config = config

    def embed(self, model: Any, batch: Batch) -> Views:
        """The embeddings [n, width] of the texts, their pairs and the negatives."""
        embeddings = self._pool(model(**batch.inputs).last_hidden_state, batch.inputs["attention_mask"])
        if self.config.normalize:
            embeddings = functional.normalize(embeddings, dim=-1)
        return tuple(embeddings[batch.targets["views"] == view] for view in VIEWS)

    def compare(self, views: Views, rows: torch.Tensor) -> Sequence[Comparison]:
        """The texts with all pairs and negatives and, if symmetric, the pairs with all texts."""
        texts, pairs, negatives = views
        forward = Comparison(texts[rows] @ torch.cat([pairs, negatives]).T / self.config.temperature, rows)
        backward = Comparison(pairs[rows] @ texts.T / self.config.temperature, rows)
        return [forward, backward] if self.config.symmetric else [forward]

    def _pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        match self.config.pooling:
            case "Mean":
                return (states * mask[..., None]).sum(1, dtype=torch.float32) / mask.sum(1, keepdim=True)
            case "CLS":
                return states[:, 0].float()
            case "LastToken":
                return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1].float()
