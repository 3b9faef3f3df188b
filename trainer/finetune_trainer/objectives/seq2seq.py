"""Write one text after reading another: translation, summarization, and whatever else is text to text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow
import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.seq2seq import Seq2SeqConfig as Options
from finetune_trainer.data.loading.collate import IGNORE_INDEX, Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus
from finetune_trainer.data.records.row import Row
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.huggingface import languages
from finetune_trainer.objectives.base import BatchStatistics
from finetune_trainer.objectives.encoder_decoder import EncoderDecoder
from finetune_trainer.objectives.forward import unwrap_model
from finetune_trainer.objectives.metrics.text_generation import METRICS
from finetune_trainer.objectives.tokenization import fingerprint

TARGET = "target"  # the tokens to write


class Seq2Seq(EncoderDecoder):
    """The loss is that of `EncoderDecoder`; an evaluation may also let the model write, and compare texts."""

    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        TARGET: pyarrow.list_(pyarrow.int32()),
    }

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._metrics = [METRICS[name]() for name in dict.fromkeys(options.metrics)]
        self._beginning = languages.set_languages(processor, options.languages, "spec.objective.seq2Seq.languages")
        # Room for the end of a target, where the tokenizer does not put one there.
        alone = np.array(processor(text_target="a")["input_ids"])
        self._room = options.max_target_length - max(len(self._target(alone)) - len(alone), 0)

    @property
    def identity(self) -> Any:
        options, data = self._options, self.spec.data
        spoken = options.languages and list(options.languages)
        lengths = [data.max_length, self.spec.overlong, options.max_target_length]
        return [fingerprint(self.processor), *lengths, options.prefix, spoken]

    @property
    def lengths(self) -> Mapping[str, int]:
        return {**super().lengths, "spec.objective.seq2Seq.maxTargetLength": self._options.max_target_length}

    def start(self, model: Any, world: ProcessGroup) -> None:
        if self._beginning is not None:
            self._beginning.configure(model)
        super().start(model, world)

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """Text and target, each with the tokens that the tokenizer puts around one; what is too long is cut at its end."""
        inputs = self._tokenized("text", [self._read(record) for record in records], self.spec.data.max_length)
        targets = self._tokenized("text_target", [record.values["target"] for record in records], self._room)
        for record, read, written in zip(records, inputs, targets, strict=True):
            if not all(record.values[role].strip() for role in ("text", "target")):
                yield EncodedRow([], EncodeStatus.EMPTY)
            elif (read.is_cut or written.is_cut) and self.spec.overlong == "Drop":
                yield EncodedRow([], EncodeStatus.DROPPED)
            else:
                status = EncodeStatus.TRUNCATED if read.is_cut or written.is_cut else EncodeStatus.KEPT
                yield EncodedRow([{TOKENS: read.tokens, TARGET: self._target(written.tokens)}], status)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """Padded at the right."""
        return self._batch([row[TOKENS] for row in rows], [row[TARGET] for row in rows], layout)

    def measure(self, model: Any, batch: Batch) -> BatchStatistics:
        """Statistics: those of `EncoderDecoder`, and each metric's sums over the texts that the model writes."""
        found = super().measure(model, batch)
        if not self._metrics:
            return found
        labels = batch["labels"]
        rows = (labels != IGNORE_INDEX).any(1)
        # Rows without a target are written as well: other ranks may be waiting for this one.
        written = self._texts(self._write(model, batch)[rows])
        wanted = self._texts(labels[rows].masked_fill(labels[rows] == IGNORE_INDEX, self.processor.pad_token_id))
        sums = [number for metric in self._metrics for number in metric.sums(written, wanted)]
        return BatchStatistics(found.losses, torch.cat([found.statistics, torch.tensor(sums, dtype=torch.float64)]))

    def metrics(self, losses: Sequence[float], statistics: np.ndarray[Any, Any]) -> dict[str, float]:
        """Loss, perplexity and token accuracy, and how close to their targets the written texts are."""
        own, *parts = np.split(statistics, np.cumsum([2, *(metric.width for metric in self._metrics)])[:-1])
        found = super().metrics(losses, own)
        for metric, sums in zip(self._metrics, parts, strict=True):
            found |= metric.scores(sums)
        return found

    def _read(self, record: Row) -> str:
        """The record's text, behind its examples: a line for each one's text, one for its target, and an empty one."""
        solved = [f"{self._options.prefix}{one.values['text']}\n{one.values['target']}\n\n" for one in record.examples]
        return "".join([*solved, self._options.prefix, record.values["text"]])

    def _write(self, model: Any, batch: Batch) -> torch.Tensor:
        """The tokens that the model writes for each row, [sequences, at most maxTargetLength and the one it begins with]."""
        # With ZeRO-3 no rank may stop before the others.
        together = self.spec.deepspeed.zero_stage == 3 and torch.distributed.is_initialized()
        writer = unwrap_model(model)
        kept, writer.generation_config.max_length = writer.generation_config.max_length, None  # else each batch warns of it
        tokens: torch.Tensor = writer.generate(
            input_ids=batch[TOKENS], attention_mask=batch["attention_mask"], do_sample=False, num_beams=self._options.beams,
            max_new_tokens=self._options.max_target_length, use_cache=True, synced_gpus=together,
        )  # fmt: skip
        writer.generation_config.max_length = kept
        return tokens

    def _texts(self, tokens: torch.Tensor) -> list[str]:
        return [self.processor.decode(row, skip_special_tokens=True) for row in tokens]

    def _tokenized(self, kind: str, texts: Sequence[str], most: int) -> list[_Text]:
        """The tokens of each text, at most so many; `kind` is the tokenizer's name for texts to read, or to write."""
        settings = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        encoded = self.processor(**{kind: list(texts)}, **settings)["input_ids"]
        long = [index for index, tokens in enumerate(encoded) if len(tokens) > most]
        if long:
            shorter = self.processor(**{kind: [texts[i] for i in long]}, **settings, truncation=True, max_length=most)
            for index, tokens in zip(long, shorter["input_ids"], strict=True):
                encoded[index] = tokens
        return [_Text(np.array(tokens, np.int32), index in set(long)) for index, tokens in enumerate(encoded)]


class _Text(NamedTuple):
    tokens: Tokens
    is_cut: bool
