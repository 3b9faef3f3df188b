"""Trains a byte-level BPE tokenizer on the job's own data (Sennrich et al. 2016; Radford et al. 2019)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune_trainer.config import DataConfig
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.detectors.base import Detector
from finetune_trainer.data.records.row import texts
from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.huggingface.special_tokens import PADDING_TOKENS, sentinel_token
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.locking import exclusive, write_folder_atomically

END, PADDING, MASK = "<|endoftext|>", PADDING_TOKENS[0], "<|mask|>"
FORMAT_VERSION = 2
"""Part of the cache key. Raise it with each change of the training, so that tokenizers trained before are not found."""


@dataclass(frozen=True)
class Corpus:
    """All texts of the training sources; with a `detector`, personal data in them is replaced by placeholders."""

    sources: Sequence[Source]
    detector: Detector | None = None

    @property
    def identity(self) -> Any:
        """A JSON value that changes when the texts change."""
        return [self.detector and self.detector.identity, *(source.identity for source in self.sources)]

    def __call__(self) -> Iterator[str]:
        """Read the texts from the beginning."""
        for source in self.sources:
            for row in source.rows():
                for text in texts(row):
                    yield self.detector.scrub(text) if self.detector else text


def training_corpus(data: DataConfig, resolver: SourceResolver) -> Corpus:
    """The texts of `data.train`, scrubbed if data.checks.personalData is Scrub."""
    detector = detector_for(data.checks) if data.checks.personal_data == "Scrub" else None
    return Corpus(resolver.training_sources(data), detector)


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, adds_special_tokens: bool = False, sentinels: int = 0
) -> PreTrainedTokenizerBase:  # fmt: skip
    """Train a tokenizer of at most `vocab_size` entries; the result depends on the texts alone, not on the order of threads.

    All 256 bytes are entries, so any text can be encoded and is decoded unchanged. The end-of-text token also serves as the
    beginning-of-text token. Padding has its own token: with the end-of-text token in its place, code that ignores padding in
    the loss would never train the model to end a text. With `adds_special_tokens` the tokenizer puts each text between two
    end-of-text tokens, from which an encoder computes its summary. `sentinels` is the number of sentinel tokens.

    Raises DataError if there is no text, and ConfigurationError for a size below that of special tokens and bytes together.
    """
    special_tokens = [END, PADDING, MASK, *map(sentinel_token, range(sentinels))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(special_tokens) + len(alphabet):
        raise ConfigurationError(
            f"spec.model.tokenizer.train.vocabSize: {vocab_size} entries leave no room for words after {len(special_tokens)} "
            f"special tokens and {len(alphabet)} bytes: raise it, or lower data.maxLength, which determines the number of "
            "sentinels"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special_tokens,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    characters = 0

    def counted_texts() -> Iterator[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            heartbeat.beat()
            yield text

    with heartbeat.while_busy():
        tokenizer.train_from_iterator(counted_texts(), trainer)
    if not characters:
        raise DataError("spec.data.train: there is no text to train a tokenizer on: add data, or set model.tokenizer.source")
    encoder_tokens: dict[str, Any] = {}
    if adds_special_tokens:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A {END}", pair=f"{END} $A {END} $B:1 {END}:1", special_tokens=[(END, tokenizer.token_to_id(END))]
        )
        encoder_tokens = {"cls_token": END, "sep_token": END}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING, mask_token=MASK,
        clean_up_tokenization_spaces=False, extra_special_tokens=special_tokens[3:], **encoder_tokens,
    )  # fmt: skip


def train_tokenizer_once(
    corpus: Corpus,
    vocab_size: int,
    *,
    adds_special_tokens: bool = False,
    sentinels: int = 0,
    cache: Path,
) -> PreTrainedTokenizerBase:
    """Train a tokenizer as `train_tokenizer` does, or load it from this machine's cache if it was trained before.

    One process of the machine trains it while the others wait.
    """
    key = json.dumps([FORMAT_VERSION, vocab_size, adds_special_tokens, sentinels, corpus.identity], sort_keys=True)
    folder = cache / "tokenizers" / hashlib.sha256(key.encode()).hexdigest()[:32]
    with exclusive(folder):
        if not folder.exists():
            with write_folder_atomically(folder) as temporary:
                tokenizer = train_tokenizer(corpus(), vocab_size, adds_special_tokens=adds_special_tokens, sentinels=sentinels)
                tokenizer.save_pretrained(temporary)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded
