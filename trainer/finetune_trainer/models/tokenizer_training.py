"""A byte-level BPE tokenizer learnt from the job's own data (Sennrich et al. 2016; Radford et al. 2019)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune_trainer.config import DataConfig
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.checks.personal_data import Detector
from finetune_trainer.data.records.row import texts
from finetune_trainer.data.sources.base import Source
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.huggingface.pretrained import PADDING_TOKENS
from finetune_trainer.protocol.outcome import ConfigurationError, DataError
from finetune_trainer.storage.locking import exclusive, write_folder_atomically

END, PADDING, MASK = "<|endoftext|>", PADDING_TOKENS[0], "<|mask|>"
LAYOUT = 2  # part of the cache's key: a change of the training must not find the tokenizer of before


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


def sentinel(number: int) -> str:
    """The token that stands for a hidden span of a text, numbered from 0; T5's name for it."""
    return f"<extra_id_{number}>"


def learn(texts: Iterable[str], vocab_size: int, *, framed: bool = False, sentinels: int = 0) -> PreTrainedTokenizerBase:
    """A tokenizer of at most `vocab_size` entries, the same for the same texts in whatever order of threads.

    Any text can be encoded and comes back unchanged, since all 256 bytes are entries. Its end-of-text token also begins a text
    where a model wants one. Padding has a token of its own: were it the end-of-text token, whoever ignores padding in a loss
    would teach the model never to stop. With `framed` each text stands between two end-of-text tokens, of which an encoder
    makes its summary. It has as many sentinel tokens as asked for. Raises DataError without any text, and ConfigurationError
    for a size that special tokens and bytes alone exceed.
    """
    special = [END, PADDING, MASK, *map(sentinel, range(sentinels))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(special) + len(alphabet):
        raise ConfigurationError(
            f"spec.model.tokenizer.train.vocabSize: {vocab_size} entries hold no words beside {len(special)} special "
            f"tokens and {len(alphabet)} bytes: raise it, or lower data.maxLength, of which the number of sentinels follows"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for text in texts:
            seen += len(text)
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    if not seen:
        raise DataError("spec.data.train: there is no text to train a tokenizer on: add data, or set model.tokenizer.source")
    frame = {}
    if framed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A {END}", pair=f"{END} $A {END} $B:1 {END}:1", special_tokens=[(END, tokenizer.token_to_id(END))]
        )
        frame = {"cls_token": END, "sep_token": END}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PADDING, mask_token=MASK,
        clean_up_tokenization_spaces=False, extra_special_tokens=special[3:], **frame,
    )  # fmt: skip


def learn_once(
    corpus: Corpus,
    vocab_size: int,
    *,
    framed: bool = False,
    sentinels: int = 0,
    cache: Path,
    alive: Callable[[], None] = lambda: None,
) -> PreTrainedTokenizerBase:
    """The same, from the cache if this machine has learnt it before; of several ranks one works and the others wait."""
    identity = json.dumps([LAYOUT, vocab_size, framed, sentinels, corpus.identity], sort_keys=True)
    folder = cache / "tokenizers" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    with exclusive(folder, alive):
        if not folder.exists():
            with write_folder_atomically(folder) as temporary:
                learn(corpus(), vocab_size, framed=framed, sentinels=sentinels).save_pretrained(temporary)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded
