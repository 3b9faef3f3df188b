"""Augmented copies of training rows, equal on every machine: back-translation, then random changes of words and characters
(EDA, Wei & Zou 2019, arXiv:1901.11196)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_trainer import config
from finetune_trainer.data.augmentation.back_translation import BackTranslator, CopyText, load_back_translator
from finetune_trainer.data.augmentation.resources import FIELD, AugmentationResources
from finetune_trainer.data.augmentation.synonyms import Synonyms, read_synonyms
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.progress import ProgressTracker
from finetune_trainer.data.records.row import Row, rewrite_texts, texts
from finetune_trainer.data.sources.stream import TRAIN, Split, SplitRow, batches

BATCH_ROWS = 1000  # rows whose texts are translated together
_WORD = re.compile(r"(\S+)")  # splitting by it puts the words at odd indices and the whitespace at even ones
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)  # a word without the punctuation around it


@dataclass(frozen=True)
class Augmenter:
    """Makes augmented copies. All randomness depends on the seed, the row's position among all rows and the copy's number."""

    config: config.AugmentationConfig
    synonyms: Synonyms
    seed: int
    translator: BackTranslator | None = None

    def __call__(self, rows: Iterable[SplitRow]) -> Iterator[SplitRow]:
        """Each row, a training row followed by its copies; raises ConfigurationError for a text that must not change."""
        first = 0
        for batch in batches(rows, BATCH_ROWS):
            translations = self._translate(batch, first)
            for position, split_row in enumerate(batch, first):
                yield split_row
                for number in self._copy_numbers(split_row):
                    copy = self._copy(split_row.row, number, position, translations)
                    yield split_row._replace(row=copy, is_copy=True)
            first += len(batch)
        if self.translator is not None:
            self.translator.log_unchanged()

    def _copy_numbers(self, split_row: SplitRow) -> range:
        return range(copies_of(self.config, split_row.split))

    def _translate(self, batch: Sequence[SplitRow], first: int) -> Mapping[CopyText, str]:
        """The batch's texts in other words, for each copy; `first` is the position of its first row."""
        if self.translator is None:
            return {}
        copy_texts = []
        for position, split_row in enumerate(batch, first):
            for number in self._copy_numbers(split_row):
                copy_texts += [CopyText(text, number, position) for text in texts(split_row.row)]
        return self.translator(copy_texts)

    def _copy(self, row: Row, number: int, position: int, translations: Mapping[CopyText, str]) -> Row:
        random = sample_generator(self.seed, number, position)

        def rewrite(text: str) -> str:
            return self.alter(translations.get(CopyText(text, number, position), text), random)

        return rewrite_texts(row, rewrite, FIELD)

    def alter(self, text: str, random: np.random.Generator) -> str:
        """The text with words replaced by synonyms, swapped and deleted, and with noise in the letters, in this order."""
        parts = _WORD.split(text)
        words = parts[1::2]
        if not words:
            return text
        if self.config.synonyms is not None:
            words = self._replace_words(words, self.config.synonyms.share, random)
        for first in np.flatnonzero(random.random(len(words)) < self.config.swap).tolist():
            second = int(random.integers(len(words)))
            words[first], words[second] = words[second], words[first]
        kept = random.random(len(words)) >= self.config.deletion
        kept[random.integers(len(words))] = True  # there is nothing to learn from a text without words
        if self.config.noise:
            words = [_add_noise(word, self.config.noise, random) for word in words]
        altered = [parts[0]]
        for word, whitespace, is_kept in zip(words, parts[2::2], kept, strict=True):
            if is_kept:
                altered += [word, whitespace]
        return "".join(altered)

    def _replace_words(self, words: Sequence[str], share: float, random: np.random.Generator) -> list[str]:
        chosen = random.random(len(words)) < share
        return [self._synonym(word, random) if is_chosen else word for word, is_chosen in zip(words, chosen, strict=True)]

    def _synonym(self, word: str, random: np.random.Generator) -> str:
        core = _CORE.search(word)
        replacements = self.synonyms.get(core[0].lower()) if core else None
        if core is None or not replacements:
            return word
        replacement = replacements[int(random.integers(len(replacements)))]
        if core[0][0].isupper():
            replacement = replacement[:1].upper() + replacement[1:]
        return word[: core.start()] + replacement + word[core.end() :]


def copies_of(augmentation: config.AugmentationConfig | None, split: Split) -> int:
    """The number of augmented copies of each row in this split."""
    return augmentation.copies if augmentation is not None and split == TRAIN else 0


def load_augmenter(
    augmentation: config.AugmentationConfig, resources: AugmentationResources, seed: int, progress: ProgressTracker
) -> Augmenter:  # fmt: skip
    """The document's augmenter; raises what `read_synonyms` and `load_back_translator` do."""
    synonyms = read_synonyms(resources.synonyms) if resources.synonyms is not None else {}
    translator = None
    if augmentation.back_translation is not None:
        translator = load_back_translator(augmentation.back_translation, resources.translators, seed, progress)
    return Augmenter(augmentation, synonyms, seed, translator)


def _add_noise(word: str, share: float, random: np.random.Generator) -> str:
    """The word with a share of its letters deleted, doubled or swapped with the next one."""
    letters = list(word)
    for index in np.flatnonzero(random.random(len(letters)) < share).tolist():
        match int(random.integers(3)):
            case 0 if len(word) > 1:
                letters[index] = ""
            case 1:
                letters[index] *= 2
            case _ if index + 1 < len(letters):
                letters[index], letters[index + 1] = letters[index + 1], letters[index]
    return "".join(letters) or word
