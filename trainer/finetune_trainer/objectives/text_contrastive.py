"""Tell the text that goes with another from those of all other rows of the step.

With pairs it is SBERT's multiple negatives ranking (Henderson et al. 2017, arXiv:1705.00652; Reimers & Gurevych 2019,
arXiv:1908.10084), with each text as its own pair, seen with other dropout, SimCSE (Gao et al. 2021, arXiv:2104.08821).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow
import torch
from torch.nn import functional

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.text_contrastive import TextContrastiveConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout, collate
from finetune_trainer.data.loading.dataset import LENGTHS, TOKENS, Sample, Tokens, document_lengths
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.forward import forward
from finetune_trainer.objectives.losses.contrastive import Contest, Contrastive, Views
from finetune_trainer.objectives.tokenization import fingerprint, frame, output_of, tokenize
from finetune_trainer.protocol.outcome import ConfigurationError

TEXT, PAIR, NEGATIVE = PARTS = range(3)
# What sentence-transformers calls them.
POOLING = {"Mean": "mean_tokens", "CLS": "cls_token", "LastToken": "lasttoken"}


class TextContrastive(Contrastive):
    """Cross entropy of the right second text among those of all rows and all negatives of the step, in float32.

    An example is its two texts, and the negative if there is one, one after the other. A batch has `input_ids` and
    `attention_mask` [sequences, tokens]: the first texts of all rows, then the second ones, then the negatives; `labels`
    [sequences] says which of these a sequence is, -100 for none.
    """

    task: ClassVar[str] = "feature-extraction"
    adapter_task: ClassVar[str | None] = "FEATURE_EXTRACTION"
    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        LENGTHS: pyarrow.list_(pyarrow.int32()),
    }

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._frame = frame(processor)
        self._width = 0

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self.spec.data.max_length, self.spec.overlong]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """Each text for itself, with the tokens around it; what is too long is cut at its end."""
        longest = self.spec.data.max_length
        of_records = [_texts(record) for record in records]
        tokens = iter(tokenize([text for texts in of_records for text in texts], self.processor))
        for texts in of_records:
            found = [next(tokens) for _ in texts]
            if not all(text.strip() for text in texts):
                yield EncodedRow([], EncodeStatus.EMPTY)
            elif all(len(part) <= longest for part in found):
                yield EncodedRow([_example(found)], EncodeStatus.KEPT)
            elif self.spec.overlong == "Drop":
                yield EncodedRow([], EncodeStatus.DROPPED)
            else:
                yield EncodedRow([_example([self._frame.cut(part, longest) for part in found])], EncodeStatus.TRUNCATED)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """All texts of the batch as one, so that the model is called once; padded at the right."""
        texts = [np.split(row[TOKENS], np.cumsum(document_lengths(row))[:-1]) for row in rows]
        present = [(part, own[part]) for part in PARTS for own in texts if part < len(own)]
        batch = collate([{TOKENS: tokens} for _, tokens in present], self.processor.pad_token_id, layout)
        batch["labels"] = torch.tensor([part for part, _ in present] or [IGNORE_INDEX])
        return batch

    def count(self, batch: Batch) -> Sequence[int]:
        """One for each row, and one more for its way back."""
        return [int((batch["labels"] == TEXT).sum()) * (2 if self._options.symmetric else 1)]

    def model_config_overrides(self) -> dict[str, Any]:
        """Decoders need not remember what nobody will continue."""
        return {"use_cache": False}

    def start(self, model: Any, world: ProcessGroup) -> None:
        """Raises ConfigurationError for a model that does not embed tokens, or has no dropout to tell two views apart."""
        states = output_of(model, "last_hidden_state", "use an encoder such as BERT, or a causal language model")
        if self._options.unsupervised and torch.equal(states[0], states[1]):
            raise ConfigurationError(
                "spec.objective.textContrastive.unsupervised: this model has no dropout, so both views of a text are the same: "
                "set its dropout in spec.model.config, or give pairs"
            )
        self._width = states.shape[-1]

    def extra_files(self) -> dict[str, Any]:
        """What sentence-transformers needs to embed texts in the same way."""
        options = self._options
        modules = ["Transformer", "Pooling", *(["Normalize"] if options.normalize else [])]
        pooling = {f"pooling_mode_{name}": choice == options.pooling for choice, name in POOLING.items()}
        return {
            "modules.json": [
                {
                    "idx": index, "name": str(index), "path": f"{index}_{module}" if index else "",
                    "type": f"sentence_transformers.models.{module}",
                }
                for index, module in enumerate(modules)
            ],
            "sentence_bert_config.json": {"max_seq_length": self.spec.data.max_length, "do_lower_case": False},
            "config_sentence_transformers.json": {"similarity_fn_name": "cosine" if options.normalize else "dot"},
            "1_Pooling/config.json": {"word_embedding_dimension": self._width} | pooling,
        }  # fmt: skip

    def _embed(self, model: Any, batch: Batch) -> Views:
        """The embeddings [n, width] of the batch's first texts, second texts and negatives."""
        embeddings = self._pooled(forward(model, batch).last_hidden_state, batch["attention_mask"])
        if self._options.normalize:
            embeddings = functional.normalize(embeddings, dim=-1)
        return tuple(embeddings[batch["labels"] == part] for part in PARTS)

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        match self._options.pooling:
            case "Mean":
                return (states * mask[..., None]).sum(1, dtype=torch.float32) / mask.sum(1, keepdim=True)
            case "CLS":
                return states[:, 0].float()
            case "LastToken":
                return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1].float()

    def _contests(self, views: Views, rows: torch.Tensor) -> Sequence[Contest]:
        texts, pairs, negatives = views
        forth = Contest(texts[rows] @ torch.cat([pairs, negatives]).T / self._options.temperature, rows)
        back = Contest(pairs[rows] @ texts.T / self._options.temperature, rows)
        return [forth, back] if self._options.symmetric else [forth]


def _texts(record: Row) -> list[str]:
    """The first text, the second, which may be the same, and the negative where the row has one."""
    text, negative = record.values["text"], record.values.get("negative")
    return [text, record.values.get("text_pair", text), *([negative] if negative else [])]


def _example(texts: Sequence[Tokens]) -> Mapping[str, Any]:
    return {TOKENS: np.concatenate(texts), LENGTHS: [len(tokens) for tokens in texts]}
