"""Restore texts of which parts were hidden: how encoder-decoders are pre-trained (arXiv:1910.10683, arXiv:1910.13461)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow

from finetune_trainer.config import TrainSpec
from finetune_trainer.config.objectives.denoising import DenoisingConfig as Options
from finetune_trainer.data.loading.collate import Batch, Layout
from finetune_trainer.data.loading.dataset import TOKENS, Sample, Tokens
from finetune_trainer.data.preprocessing.examples import EncodedRow, EncodeStatus, split_or_truncate
from finetune_trainer.data.records.row import Row
from finetune_trainer.huggingface.special_tokens import sentinel_token
from finetune_trainer.objectives import noise
from finetune_trainer.objectives.encoder_decoder import EncoderDecoder
from finetune_trainer.objectives.tokenization import fingerprint, frame
from finetune_trainer.protocol.outcome import ConfigurationError

BEGINS = "begins"  # of each token: 1 if a sentence begins with it
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=\u3002)|\n+")  # the last but one is Chinese


class Denoising(EncoderDecoder):
    """The loss is that of `EncoderDecoder`; the noise is drawn anew in each pass over the data.

    It depends on the seed, the pass and the row alone. Rows hold the bare tokens of texts; those that the tokenizer puts around
    a text come with the noise, around what is read and what is written.
    """

    fields: ClassVar[Mapping[str, pyarrow.DataType]] = {
        TOKENS: pyarrow.list_(pyarrow.int32()),
        BEGINS: pyarrow.list_(pyarrow.int8()),
    }

    def __init__(self, spec: TrainSpec, processor: Any) -> None:
        super().__init__(spec, processor)
        options = spec.objective.config
        assert isinstance(options, Options)
        self._options = options
        self._frame = frame(processor)
        ends = len(self._target(self._frame.around(np.zeros(0))))
        room = spec.data.max_length - max(len(self._frame.around(np.zeros(0))), ends)
        if options.noise == "SpanCorruption":
            self._most = options.spans.tokens_within(room)
            self._sentinels = _sentinels(processor, options.spans.counts(self._most)[1])
        else:
            self._most = room
            _require_mask_token(processor, options)

    @property
    def identity(self) -> Any:
        return [fingerprint(self.processor), self._most, self.spec.overlong, self._shuffles]

    def encode(self, records: Sequence[Row]) -> Iterator[EncodedRow]:
        """A text's bare tokens, in pieces of which neither what is read nor what is written is longer than maxLength."""
        texts = [record.values["text"] for record in records]
        encoded = self.processor(
            texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False,
            return_offsets_mapping=self._shuffles,
        )  # fmt: skip
        for index, ids in enumerate(encoded["input_ids"]):
            tokens, begins = np.array(ids, np.int32), np.zeros(len(ids), np.int8)
            if self._shuffles and ids:
                ends = [end for _, end in encoded["offset_mapping"][index]]
                first = [match.end() for match in SENTENCE_END.finditer(texts[index])]
                begins[np.searchsorted(ends[:-1], first, side="right")] = 1
            # Of a single token nothing could be hidden from the rest.
            pieces, status = (
                split_or_truncate(np.arange(len(ids)), self._most, self.spec.overlong)
                if len(ids) > 1
                else ([], EncodeStatus.EMPTY)
            )
            yield EncodedRow([{TOKENS: tokens[piece], BEGINS: begins[piece]} for piece in pieces if len(piece) > 1], status)

    def collate(self, rows: Sequence[Sample], randoms: Sequence[np.random.Generator], layout: Layout) -> Batch:
        """What is left of each text, and what is to be restored."""
        pairs = [self._spoilt(row, random) for row, random in zip(rows, randoms, strict=True)]
        inputs = [self._frame.around(read) for read, _ in pairs]
        return self._batch(inputs, [self._target(self._frame.around(written)) for _, written in pairs], layout)

    @property
    def _shuffles(self) -> bool:
        return self._options.noise == "TextInfilling" and self._options.infilling.shuffle_sentences

    def _spoilt(self, row: Sample, random: np.random.Generator) -> tuple[Tokens, Tokens]:
        tokens = row[TOKENS]
        if self._options.noise == "SpanCorruption":
            return noise.corrupt_spans(tokens, self._sentinels, self._options.spans, random)
        left = noise.shuffle(tokens, row[BEGINS], random) if self._shuffles else tokens
        return noise.infill(left, self.processor.mask_token_id, self._options.infilling, random), tokens


def _sentinels(tokenizer: Any, needed: int) -> Tokens:
    """The numbers of so many sentinel tokens, in their order; raises ConfigurationError if there are fewer."""
    known = tokenizer.get_vocab()
    present = 0
    while present < needed and sentinel_token(present) in known:
        present += 1
    if present < needed:
        raise ConfigurationError(
            f"spec.model.tokenizer: SpanCorruption needs {needed} sentinel tokens for texts of this maxLength "
            f"({sentinel_token(0)} to {sentinel_token(needed - 1)}), and the tokenizer has "
            f"{present}: use one made for T5, lower data.maxLength, or raise objective.denoising.spanCorruption.meanSpanLength"
        )
    return np.array([known[sentinel_token(number)] for number in range(needed)], np.int32)


def _require_mask_token(tokenizer: Any, options: Options) -> None:
    if tokenizer.mask_token_id is None:
        raise ConfigurationError(
            "spec.model.tokenizer: it has no mask token to hide others behind: set mask_token in its tokenizer_config.json, or "
            "use a tokenizer made for BART"
        )
    if options.infilling.shuffle_sentences and not tokenizer.is_fast:
        raise ConfigurationError(
            "spec.objective.denoising.textInfilling.shuffleSentences: this tokenizer does not tell where sentences begin: use "
            "its fast version, or set shuffleSentences: false"
        )
