"""Tag each word of a text, such as with its kind of entity or its part of speech."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForTokenClassification

from finetune_trainer.config.objectives.token_classification import TokenClassificationConfig
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeIssue, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import (
    BatchStatistics,
    Collator,
    Encoder,
    Metrics,
    Objective,
    ObjectiveContext,
    Statistics,
)
from finetune_trainer.objectives.description import Block, token_segments
from finetune_trainer.objectives.inputs.pretokenized import word_level_tokenizer
from finetune_trainer.objectives.inputs.tags import Tags
from finetune_trainer.objectives.inputs.tokenization import encoding_fingerprint, special_tokens
from finetune_trainer.objectives.losses.from_outputs import TokenLoss, count_labels
from finetune_trainer.objectives.metrics.classification import (
    MAX_LABELS_WITH_F1,
    confusion_table,
    count_pairs,
    label_counts_from_pairs,
    precision_recall_f1,
)
from finetune_trainer.objectives.model_setups.classifier import ClassifierSetup

TAGS = "tags"  # of each token: its word's tag if the word begins with it, else IGNORE_INDEX


class TokenClassification(Objective):
    """Cross entropy of each word's tag, predicted at the word's first token.

    A batch has the inputs `input_ids` and `attention_mask`, and the targets `labels`, -100 except at words' first tokens; all
    [sequences, tokens].
    """

    encoder: TaggedWordsEncoder

    @classmethod
    def assemble(cls, config: TokenClassificationConfig, context: ObjectiveContext, processor: Any) -> Self:
        """Raises ConfigurationError for a tokenizer that cannot tokenize words."""
        tokenizer = word_level_tokenizer(processor)
        tags = Tags(config.labels, context.section)
        loss = TokenLoss(context.label_smoothing)
        return cls(
            encoder=TaggedWordsEncoder(tokenizer, context, tags),
            collator=TaggedWordsCollator(tokenizer),
            model_setup=TokenClassificationSetup(labels=tags, pad_token_id=tokenizer.pad_token_id),
            loss=loss,
            metrics=TagMetrics(loss, tags),
        )

    def describe(self, sample: Sample, batch: Batch) -> list[Block]:
        """The text, with the tag of each word at its first token."""
        tokens, labels = sample[TOKENS], batch.targets["labels"][0, : len(sample[TOKENS])].numpy()
        segments = token_segments(tokens, labels, self.processor, self.encoder.tags.names.__getitem__)
        return [Block(name="text", segments=segments)]


class TaggedWordsEncoder(Encoder):
    """A text is the tokens of its words between the tokenizer's special tokens."""

    fields = MappingProxyType({TOKENS: pyarrow.list_(pyarrow.int32()), TAGS: pyarrow.list_(pyarrow.int32())})

    def __init__(self, processor: Any, context: ObjectiveContext, tags: Tags) -> None:
        super().__init__(processor, context)
        self.tags = tags
        self.special_tokens = special_tokens(processor)

    def collect_statistics(self, rows: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The tags, from the document or else from the data; raises DataError if there is only one."""
        return self.tags.collect_statistics(rows)

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Use the tags."""
        super().set_statistics(statistics)
        self.tags.set_statistics(statistics)

    @property
    def fingerprint(self) -> Any:
        return [*encoding_fingerprint(self.processor, self.context), *self.tags.fingerprint]

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text that is too long loses its last words. Words without tokens, such as blanks, have no tag."""
        encoded = self.processor(
            [row.values["tokens"] for row in rows], is_split_into_words=True, add_special_tokens=False,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        room = self.context.max_length - self.special_tokens.total
        for index, row in enumerate(rows):
            word_tags = self.tags.encode(row)
            tokens = np.array(encoded["input_ids"][index], np.int32)
            words = np.array(encoded.word_ids(index), np.int32)
            tags = words
            if len(words):
                is_first = np.diff(words, prepend=-1) != 0
                tags = np.where(is_first, word_tags[words], IGNORE_INDEX)
            if len(word_tags) and (word_tags == IGNORE_INDEX).all():
                yield EncodedRow([], EncodeStatus.UNLABELED)
                continue
            pieces, status = split_or_truncate(np.arange(len(tokens)), room, self.context.overlong)
            issues = [] if self.tags.is_consistent(row) else [EncodeIssue.INCONSISTENT_TAGS]
            if pieces and (np.delete(word_tags, words) != IGNORE_INDEX).any():
                issues.append(EncodeIssue.UNTOKENIZED_WORDS)
            yield EncodedRow([self._example(tokens[piece], tags[piece]) for piece in pieces], status, issues=issues)

    def _example(self, tokens: Tokens, tags: Tokens) -> Mapping[str, Any]:
        before = np.full(len(self.special_tokens.prefix), IGNORE_INDEX)
        after = np.full(len(self.special_tokens.suffix), IGNORE_INDEX)
        return {TOKENS: self.special_tokens.add_to(tokens), TAGS: np.concatenate([before, tags, after])}


class TaggedWordsCollator(Collator):
    """Pads at the right."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def collate(self, samples: Sequence[Sample], generators: Sequence[np.random.Generator], layout: Layout) -> Batch:
        return collate(samples, self.tokenizer.pad_token_id, layout, labels=[sample[TAGS] for sample in samples])

    def count_terms(self, batch: Batch) -> Sequence[int]:
        """Words."""
        return [count_labels(batch.targets["labels"])]


@dataclass(kw_only=True)
class TokenClassificationSetup(ClassifierSetup):
    """A model with a classification head at each token."""

    pad_token_id: int
    pipeline_task: str = "token-classification"
    auto_class: Any = AutoModelForTokenClassification
    peft_task_type: str | None = "TOKEN_CLS"

    def config_overrides(self) -> dict[str, Any]:
        """The tags, and the padding token."""
        return super().config_overrides() | {"pad_token_id": self.pad_token_id}


class TagMetrics(Metrics[Batch]):
    """Accuracy over words, and precision, recall and F1 of entities, or of tags where these mark no entities.

    An entity is correct if its type, its first word and its last word are (Tjong Kim Sang and De Meulder 2003).
    """

    def __init__(self, loss: TokenLoss, tags: Tags) -> None:
        self.loss = loss
        self.tags = tags

    @property
    def scored_labels(self) -> list[str]:
        """Each type of entities, or each tag where these mark none, unless there are many."""
        names = self.tags.entity_types or self.tags.names
        return names if len(names) <= MAX_LABELS_WITH_F1 else []

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: `count_labels` of entity types, `count_pairs` of tags, correct words, all words."""
        outputs, labels = self.loss.forward(model, batch), self.loss.labels(batch)
        losses = self.loss.from_outputs(outputs, batch, 0.0)
        predicted, is_word = outputs.logits.argmax(-1), labels != IGNORE_INDEX
        entities = torch.zeros(0)
        if self.tags.entity_types:
            entities = self._count_entities(predicted, labels)
        pairs = count_pairs(predicted[is_word], labels[is_word], len(self.tags.names)).cpu()
        words = torch.stack([(predicted == labels).sum(), is_word.sum()]).double().cpu()
        return BatchStatistics(losses, torch.cat([entities, pairs, words]))

    def compute(self, losses: Sequence[float], statistics: Statistics) -> dict[str, float]:
        """`loss`, `accuracy`, and those of `precision_recall_f1`."""
        entity_types, names = self.tags.entity_types, self.tags.names
        entities, pairs, (correct, words) = np.split(statistics, [3 * len(entity_types), -2])
        if entity_types:
            scores = precision_recall_f1(entities, entity_types)
        else:
            scores = precision_recall_f1(label_counts_from_pairs(pairs, len(names)), names)
        return {"loss": losses[0], "accuracy": float(correct / max(words, 1))} | scores

    def tables(self, statistics: Statistics) -> dict[str, Any]:
        """The confusion matrix of tags."""
        return confusion_table(statistics[3 * len(self.tags.entity_types) : -2], self.tags.names)

    def _count_entities(self, predicted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """For each type the correct, the predicted and the actual entities, [3 x types] float64."""
        from seqeval.metrics.sequence_labeling import get_entities  # with all of scikit-learn, which takes a second

        names, types = self.tags.names, self.tags.entity_types
        counts = torch.zeros(3, len(types), dtype=torch.float64)
        for row_predicted, row_labels in zip(predicted.cpu().numpy(), labels.cpu().numpy(), strict=True):
            is_word = row_labels != IGNORE_INDEX
            predicted_entities = set(get_entities([names[tag] for tag in row_predicted[is_word]]))
            actual_entities = set(get_entities([names[tag] for tag in row_labels[is_word]]))
            correct = predicted_entities & actual_entities
            for index, entities in enumerate((correct, predicted_entities, actual_entities)):
                for entity_type, *_ in entities:
                    counts[index, types.index(entity_type)] += 1
        return counts.flatten()
