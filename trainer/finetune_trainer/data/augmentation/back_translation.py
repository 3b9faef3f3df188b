"""Texts in other words, by translating them there and back (Sennrich et al. 2016, arXiv:1511.06709), the same on every machine.

Sampling is that of Edunov et al. 2018 (arXiv:1808.09381).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from finetune_trainer import config
from finetune_trainer.data.loading.collate import Layout, collate
from finetune_trainer.data.loading.dataset import TOKENS
from finetune_trainer.data.progress import Pulse
from finetune_trainer.huggingface import languages
from finetune_trainer.huggingface.pretrained import explain_errors, load_pretrained_tokenizer, max_positions, validate_weights
from finetune_trainer.protocol.outcome import ConfigurationError

FIELD = "spec.data.augmentation.backTranslation"
log = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """A text to be put in other words, for which copy of the record at which place among all."""

    text: str
    copy: int = 0
    place: int = 0


Sampling = Callable[[Sequence[Wanted]], LogitsProcessorList]


@dataclass(frozen=True)
class Translator:
    """A model that translates; `what` is its field and source, for messages."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    prefix: str
    what: str
    max_length: int
    batch_size: int

    def __call__(self, texts: Mapping[Wanted, str], sampling: Sampling, done: Callable[[int], None]) -> dict[Wanted, str]:
        """The translation of each text that has one; `done` is told the number of texts of each batch."""
        if not texts:
            return {}
        whose = list(texts)
        tokens = self.tokenizer([self.prefix + text for text in texts.values()], verbose=False)["input_ids"]
        # Texts of like length together, so that little is padding.
        order = sorted((len(own), number) for number, own in enumerate(tokens) if len(own) <= self.max_length)
        written: dict[Wanted, str] = {}
        for begin in range(0, len(order), self.batch_size):
            batch = [number for _, number in order[begin : begin + self.batch_size]]
            found = self._write([tokens[number] for number in batch], sampling([whose[number] for number in batch]))
            written |= {whose[number]: text for number, text in zip(batch, found, strict=True) if text}
            done(len(batch))
        return written

    def _write(self, tokens: Sequence[Any], sampling: LogitsProcessorList) -> list[str]:
        batch = collate([{TOKENS: own} for own in tokens], self.tokenizer.pad_token_id, Layout())
        with explain_errors(f"{self.what} cannot translate", "name another source"):
            rows = self.model.generate(
                **batch.to(self.model.device).inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_length,
                logits_processor=sampling,
            )  # fmt: skip
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]


@dataclass
class BackTranslator:
    """Two models, one for each way; what is random depends on the seed, the text, and whose copy it is for alone."""

    forward: Translator
    back: Translator
    temperature: float
    seed: int
    pulse: Pulse
    given: int = 0
    unchanged: int = 0

    def __call__(self, wanted: Sequence[Wanted]) -> dict[Wanted, str]:
        """The texts in other words, without those that are too long or of whose translation nothing is left."""
        # Without sampling a text has one translation, whoever wants it.
        asked = {one: one if self.temperature else Wanted(one.text) for one in wanted if one.text.strip()}
        texts = {one: one.text for one in asked.values()}
        there = self.forward(texts, partial(self._sampling, 0), lambda _: self.pulse.alive())
        back = self.back(there, partial(self._sampling, 1), self.pulse)
        found = {one: back[key] for one, key in asked.items() if key in back}
        self.given, self.unchanged = self.given + len(asked), self.unchanged + len(asked) - len(found)
        return found

    def tell(self) -> None:
        """Says how many texts kept their own words."""
        if self.unchanged:
            log.warning(
                "data: %d of %d texts keep their own words in a copy: they or their translations are longer than "
                "%s.maxLength, or nothing is left of them", self.unchanged, self.given, FIELD,
            )  # fmt: skip

    def _sampling(self, way: int, wanted: Sequence[Wanted]) -> LogitsProcessorList:
        if not self.temperature:
            return LogitsProcessorList()
        seeds = ([self.seed, way, one.copy, one.place, crc32(one.text.encode())] for one in wanted)
        return LogitsProcessorList([GumbelMax(self.temperature, [np.random.default_rng(seed) for seed in seeds])])


class GumbelMax(LogitsProcessor):  # type: ignore[misc]  # transformers has no types here
    """Makes the likeliest token one drawn from the model's distribution (Gumbel 1954), with each text's own random numbers.

    So a text's translation does not depend on what is translated beside it, as transformers' sampling does.
    """

    def __init__(self, temperature: float, randoms: Sequence[np.random.Generator]) -> None:
        self._temperature, self._randoms = temperature, randoms

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [texts, vocabulary] with noise."""
        draws = torch.from_numpy(np.stack([random.standard_exponential(scores.shape[1]) for random in self._randoms]))
        return scores / self._temperature - draws.to(scores.device).log().to(scores.dtype)


def back_translator(options: config.BackTranslationConfig, folders: Sequence[Path], seed: int, pulse: Pulse) -> BackTranslator:
    """The models of the folders [forward, back], on this process's GPU if there is one.

    They compute in float32, where little depends on what is in a batch. Raises ConfigurationError for what is no
    encoder-decoder, cannot be loaded, or has no room for maxLength.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forward, back = (
        _loaded(one, folder, f"{FIELD}.{way}", options, device)
        for way, one, folder in zip(("forward", "back"), (options.forward, options.back), folders, strict=True)
    )
    return BackTranslator(forward, back, options.temperature, seed, pulse.beside("texts translated"))


def _loaded(
    named: config.TranslatorConfig, folder: Path, field: str, options: config.BackTranslationConfig, device: torch.device
) -> Translator:  # fmt: skip
    what, advice = f"{field}.source: {named.source}", "name another source"
    with explain_errors(f"{what} holds no usable model configuration", advice):
        known = AutoConfig.from_pretrained(folder)
    if not known.is_encoder_decoder:
        raise ConfigurationError(f"{what} is a {known.model_type}, not an encoder-decoder that translates: {advice}")
    with explain_errors(f"{what} cannot be loaded", advice):
        model, report = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    validate_weights(model, {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}, what, advice)
    model.generation_config.max_length = None  # beside max_new_tokens it would be warned of with every batch
    positions = max_positions(model)
    if positions and positions < options.max_length:
        raise ConfigurationError(f"{FIELD}.maxLength: {named.source} has positions for {positions} tokens only: lower it")
    tokenizer = load_pretrained_tokenizer(folder, what)
    if (beginning := languages.set_languages(tokenizer, named.languages, f"{field}.languages")) is not None:
        beginning.configure(model)
    return Translator(model.eval().to(device), tokenizer, named.prefix, what, options.max_length, options.batch_size)
