"""Back-translation (Sennrich et al. 2016, arXiv:1511.06709), equal on every machine.

Sampling follows Edunov et al. 2018 (arXiv:1808.09381).
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
from finetune_trainer.data.progress import ProgressTracker
from finetune_trainer.huggingface import languages
from finetune_trainer.huggingface.generation import token_heartbeat
from finetune_trainer.huggingface.pretrained import explain_errors, load_pretrained_tokenizer, max_positions, validate_weights
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError

FIELD = "spec.data.augmentation.backTranslation"
FORWARD, BACK = 0, 1  # streams of random numbers
log = logging.getLogger(__name__)


class CopyText(NamedTuple):
    """A text to paraphrase, for one copy of the row at one position among all rows."""

    text: str
    copy: int = 0
    position: int = 0


Sampling = Callable[[Sequence[CopyText]], LogitsProcessorList]


@dataclass(frozen=True)
class Translator:
    """A translation model; `description` is its field and source, for error messages."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    prefix: str
    description: str
    max_length: int
    batch_size: int

    def __call__(
        self, texts: Mapping[CopyText, str], sampling: Sampling, advance: Callable[[int], None]
    ) -> dict[CopyText, str]:
        """The translation of each text that has one; `advance` is called with the number of texts of each batch."""
        if not texts:
            return {}
        keys = list(texts)
        tokens = self.tokenizer([self.prefix + text for text in texts.values()], verbose=False)["input_ids"]
        # Texts of similar length share a batch, which keeps padding low.
        order = sorted((len(ids), index) for index, ids in enumerate(tokens) if len(ids) <= self.max_length)
        translations: dict[CopyText, str] = {}
        for begin in range(0, len(order), self.batch_size):
            batch = [index for _, index in order[begin : begin + self.batch_size]]
            batch_keys = [keys[index] for index in batch]
            outputs = self._generate([tokens[index] for index in batch], sampling(batch_keys))
            for key, output in zip(batch_keys, outputs, strict=True):
                if output:
                    translations[key] = output
            advance(len(batch))
        return translations

    def _generate(self, tokens: Sequence[Any], sampling: LogitsProcessorList) -> list[str]:
        batch = collate([{TOKENS: ids} for ids in tokens], self.tokenizer.pad_token_id, Layout())
        with explain_errors(f"{self.description} cannot translate", "name another source"):
            sequences = self.model.generate(
                **batch.to(self.model.device).inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_length,
                logits_processor=sampling, stopping_criteria=token_heartbeat(),
            )  # fmt: skip
        return [self.tokenizer.decode(sequence, skip_special_tokens=True).strip() for sequence in sequences]


@dataclass
class BackTranslator:
    """Two translation models. All randomness depends on the seed, the text, and the copy that it is for."""

    forward: Translator
    back: Translator
    temperature: float
    seed: int
    progress: ProgressTracker
    total: int = 0
    unchanged: int = 0

    def __call__(self, copy_texts: Sequence[CopyText]) -> dict[CopyText, str]:
        """The paraphrase of each text that has one; texts that are too long or translate to nothing have none."""
        keys: dict[CopyText, CopyText] = {}
        for copy_text in copy_texts:
            if copy_text.text.strip():
                # Without sampling a text has one translation, which all copies share.
                keys[copy_text] = copy_text if self.temperature else CopyText(copy_text.text)
        texts = {key: key.text for key in keys.values()}
        forward = self.forward(texts, partial(self._sampling, FORWARD), lambda count: heartbeat.beat())
        back = self.back(forward, partial(self._sampling, BACK), self.progress.advance)
        paraphrases = {copy_text: back[key] for copy_text, key in keys.items() if key in back}
        self.total += len(keys)
        self.unchanged += len(keys) - len(paraphrases)
        return paraphrases

    def log_unchanged(self) -> None:
        """Warn of texts that were not translated."""
        if self.unchanged:
            log.warning(
                "data: %d of %d texts keep their own words in a copy: they or their translations are longer than "
                "%s.maxLength, or the translation is empty", self.unchanged, self.total, FIELD,
            )  # fmt: skip

    def _sampling(self, direction: int, copy_texts: Sequence[CopyText]) -> LogitsProcessorList:
        if not self.temperature:
            return LogitsProcessorList()
        generators = []
        for copy_text in copy_texts:
            seed = [self.seed, direction, copy_text.copy, copy_text.position, crc32(copy_text.text.encode())]
            generators.append(np.random.default_rng(seed))
        return LogitsProcessorList([GumbelMax(self.temperature, generators)])


class GumbelMax(LogitsProcessor):  # type: ignore[misc]  # transformers has no types here
    """Adds Gumbel noise, so that greedy decoding samples from the model's distribution (Gumbel 1954).

    Each text has its own random numbers, so that its translation does not depend on the other texts of the batch, as it does
    with transformers' sampling.
    """

    def __init__(self, temperature: float, randoms: Sequence[np.random.Generator]) -> None:
        self._temperature, self._randoms = temperature, randoms

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [texts, vocabulary] with noise."""
        draws = torch.from_numpy(np.stack([random.standard_exponential(scores.shape[1]) for random in self._randoms]))
        return scores / self._temperature - draws.to(scores.device).log().to(scores.dtype)


def load_back_translator(
    options: config.BackTranslationConfig, folders: Sequence[Path], seed: int, progress: ProgressTracker
) -> BackTranslator:  # fmt: skip
    """Load the models of the folders [forward, back], onto this process's GPU if there is one.

    They compute in float32, which makes results nearly independent of the batch. Raises ConfigurationError for a model that is
    not an encoder-decoder, cannot be loaded, or has fewer positions than maxLength.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forward_folder, back_folder = folders
    forward = _load_translator(options.forward, forward_folder, f"{FIELD}.forward", options, device)
    back = _load_translator(options.back, back_folder, f"{FIELD}.back", options, device)
    return BackTranslator(forward, back, options.temperature, seed, progress.subtask("texts translated"))


def _load_translator(
    translator: config.TranslatorConfig, folder: Path, field: str, options: config.BackTranslationConfig, device: torch.device
) -> Translator:  # fmt: skip
    description, advice = f"{field}.source: {translator.source}", "name another source"
    with explain_errors(f"{description} holds no usable model configuration", advice):
        model_config = AutoConfig.from_pretrained(folder)
    if not model_config.is_encoder_decoder:
        raise ConfigurationError(
            f"{description} is a {model_config.model_type}, not an encoder-decoder that translates: {advice}"
        )
    with explain_errors(f"{description} cannot be loaded", advice):
        model, report = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    validate_weights(model, missing, description, advice)
    model.generation_config.max_length = None  # with max_new_tokens set, transformers would warn of it in every batch
    positions = max_positions(model)
    if positions and positions < options.max_length:
        raise ConfigurationError(f"{FIELD}.maxLength: {translator.source} has positions for {positions} tokens only: lower it")
    tokenizer = load_pretrained_tokenizer(folder, description)
    if (decoder_start := languages.set_languages(tokenizer, translator.languages, f"{field}.languages")) is not None:
        decoder_start.configure(model)
    return Translator(
        model.eval().to(device), tokenizer, translator.prefix, description, options.max_length, options.batch_size
    )
