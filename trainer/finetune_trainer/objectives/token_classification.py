"""Tag each word of a text, such as with the kind of entity that it is part of or with its part of speech."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from transformers import AutoModelForTokenClassification

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.token_classification import TokenClassificationConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.objectives.base import BatchStatistics, Objective
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.cross_entropy import guesses, summed_cross_entropy
from finetune_trainer.objectives.metrics import classification
from finetune_trainer.objectives.pretokenized import for_words
from finetune_trainer.objectives.tokenization import fingerprint, frame

TAGS = "tags"  # of each token: its word's tag if the word begins with it, else IGNORE_INDEX
IN_ENTITY = re.compile(r"[BIES]-.")  # a tag of IOB2 or IOBES; O is one as well


class TokenClassification(Objective):
    """Cross entropy of each word's tag, in float32, told by the model's output at the word's first token.

    A batch has `input_ids`, `attention_mask` and `labels` (-100 but at words' first tokens), all [sequences, tokens].
    """

    task: ClassVar[str] = "token-classification"
    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    adapter_task: ClassVar[str | None] = "TOKEN_CLS"
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        TAGS: pyarrow.list_(pyarrow.int32()),
    }
    has_new_head: ClassVar[bool] = True

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, for_words(processor))
        options = spec.objective.config
        assert isinstance(options, Options)
        self._given = options.labels
        self._numbers: dict[str, int] = {}
        self._types: list[str] = []
        self._frame = frame(self.processor)

    def collect_statistics(self, records: Callable[[], Iterable[Row]]) -> dict[str, Any]:
        """The tags, from the document or else from the data; raises DataError if there is only one."""
        found = (classification.label_name(tag) for record in records() for tag in record.values["tags"])
        return {"labels": classification.distinct(self._given, found)}

    def set_statistics(self, facts: dict[str, Any]) -> None:
        super().set_statistics(facts)
        labels = facts["labels"]
        self._numbers = {name: number for number, name in enumerate(labels)}
        tells_entities = all(name == "O" or IN_ENTITY.match(name) for name in labels)
        self._types = sorted({name[2:] for name in labels if name != "O"}) if tells_entities else []

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self.spec.data.max_length, self.spec.overlong, self._given]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text is its words' tokens between those that the tokenizer puts around it; what is too long loses its last words.

        Words of which the tokenizer makes nothing, such as blanks, are not tagged.
        """
        encoded = self.processor(
            [record.values["tokens"] for record in records], is_split_into_words=True, add_special_tokens=False,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        room = self.spec.data.max_length - len(self._frame.before) - len(self._frame.after)
        for index, record in enumerate(records):
            numbers = self._tags(record)
            tokens, words = np.array(encoded["input_ids"][index], np.int32), np.array(encoded.word_ids(index), np.int32)
            tags = np.where(np.diff(words, prepend=-1) != 0, numbers[words], IGNORE_INDEX) if len(words) else words
            pieces, status = split_or_truncate(np.arange(len(tokens)), room, self.spec.overlong)
            yield EncodedRow([self._example(tokens[piece], tags[piece]) for piece in pieces], status)

    def model_config_overrides(self) -> dict[str, Any]:
        """The number of outputs, and what they are called."""
        return {"pad_token_id": self.processor.pad_token_id} | classification.settings(list(self._numbers))

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Padded at the right."""
        return collate(rows, self.processor.pad_token_id, layout, labels=[row[TAGS] for row in rows])

    def count(self, batch: Batch) -> Sequence[int]:
        """Words."""
        return [int((batch["labels"] != IGNORE_INDEX).sum())]

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """Summed cross entropy of `model` on the batch."""
        return self._loss_sum(forward(model, batch).logits, batch, self.spec.training.label_smoothing)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: `classes.counts` of entities by their type, if the tags tell of some; `classes.pair_counts` of tags; then
        words that are right, and all words."""
        logits, labels = forward(model, batch).logits, batch["labels"]
        chosen, words = logits.argmax(-1), labels != IGNORE_INDEX
        entities = self._entities(chosen, labels) if self._types else torch.zeros(0)
        tags = classification.pair_counts(chosen[words], labels[words], len(self._numbers)).cpu()
        return BatchStatistics(self._loss_sum(logits, batch), torch.cat([entities, tags, guesses(logits, labels).cpu()]))

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Accuracy over words, and precision, recall and F1 of entities, or else of tags.

        An entity is right if its type, its first and its last word are (Tjong Kim Sang and De Meulder 2003).
        """
        entities, tags, (right, words) = np.split(statistics, [3 * len(self._types), -2])
        counts = entities if self._types else classification.counts_of_pairs(tags, len(self._numbers))
        scores = classification.scores(counts, self._types or self.facts["labels"])
        return {"loss": losses[0], "accuracy": float(right / max(words, 1))} | scores

    def tables(self, statistics: np.ndarray[Any, Any]) -> dict[str, Any]:
        """The confusion matrix of tags."""
        return classification.confusion(statistics[3 * len(self._types) : -2], self.facts["labels"])

    def _loss_sum(self, logits: torch.Tensor, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
        return summed_cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), smoothing)[None]

    def _tags(self, record: Row) -> Tokens:
        tags, words = record.values["tags"], record.values["tokens"]
        if len(tags) != len(words):
            raise record.error_for("tags", f"has {len(tags)} labels for {len(words)} words: correct the row")
        return np.array([self._number(record, tag) for tag in tags], np.int32)

    def _number(self, record: Row, tag: str | int) -> int:
        name = classification.label_name(tag)
        if name in self._numbers:
            return self._numbers[name]
        if isinstance(tag, int) and 0 <= tag < len(self._given):
            return tag
        raise classification.unknown(record, "tags", name, self._numbers, "tokenClassification")

    def _example(self, tokens: Tokens, tags: Tokens) -> Mapping[str, Any]:
        before, after = (np.full(len(part), IGNORE_INDEX) for part in self._frame)
        return {TOKENS: self._frame.around(tokens), TAGS: np.concatenate([before, tags, after])}

    def _entities(self, chosen: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from seqeval.metrics.sequence_labeling import get_entities  # with all of scikit-learn, which takes a second

        names, found = list(self._numbers), torch.zeros(3, len(self._types), dtype=torch.float64)
        for guess, label in zip(chosen.cpu().numpy(), labels.cpu().numpy(), strict=True):
            words = label != IGNORE_INDEX
            predicted, actual = (set(get_entities([names[tag] for tag in tags[words]])) for tags in (guess, label))
            for number, entities in enumerate((predicted & actual, predicted, actual)):
                for kind, *_ in entities:
                    found[number, self._types.index(kind)] += 1
        return found.flatten()
