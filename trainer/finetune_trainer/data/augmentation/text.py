"""Altered copies of records, the same on every machine: in other words, and with words changed (EDA, Wei & Zou 2019,
arXiv:1901.11196)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_trainer import config
from finetune_trainer.data.augmentation.back_translation import BackTranslator, Wanted, back_translator
from finetune_trainer.data.loading.dataloader import sample_generator
from finetune_trainer.data.preprocessing.examples import batches
from finetune_trainer.data.progress import Pulse
from finetune_trainer.data.records.row import Row, rewrite_texts, texts
from finetune_trainer.data.sources.files import File
from finetune_trainer.data.sources.resolver import Materials
from finetune_trainer.data.sources.stream import TRAIN, Split, SplitRow
from finetune_trainer.protocol.outcome import DataError

FIELD = "spec.data.augmentation"
TOGETHER = 1000  # records whose texts are translated together at most
_WORD = re.compile(r"(\S+)")  # splitting by it leaves the words at odd places and what separates them at even ones
_CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)  # a word without the punctuation around it
Synonyms = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Augmenter:
    """Makes the copies; what is random in one depends on the seed, the record's place among all, and its number alone."""

    config: config.AugmentationConfig
    synonyms: Synonyms
    seed: int
    translate: BackTranslator | None = None

    def __call__(self, records: Iterable[SplitRow]) -> Iterator[SplitRow]:
        """Each record and, if it is learnt from, its copies behind it; ConfigurationError for what must not be altered."""
        begin = 0
        for batch in batches(records, TOGETHER):
            translated = self._translated(batch, begin)
            for place, placed in enumerate(batch, begin):
                yield placed
                for number in self._numbers(placed):
                    yield placed._replace(row=self._copy(placed.row, number, place, translated), is_copy=True)
            begin += len(batch)
        if self.translate is not None:
            self.translate.tell()

    def _numbers(self, placed: SplitRow) -> range:
        return range(copies_of(self.config, placed.split))

    def _translated(self, batch: Sequence[SplitRow], begin: int) -> Mapping[Wanted, str]:
        """The batch's texts in other words, for each copy; its first record is at the place `begin`."""
        if self.translate is None:
            return {}
        copies = ((number, place, placed) for place, placed in enumerate(batch, begin) for number in self._numbers(placed))
        return self.translate([Wanted(text, number, place) for number, place, placed in copies for text in texts(placed.row)])

    def _copy(self, record: Row, number: int, place: int, translated: Mapping[Wanted, str]) -> Row:
        random = sample_generator(self.seed, number, place)

        def rewrite(text: str) -> str:
            return self.altered(translated.get(Wanted(text, number, place), text), random)

        return rewrite_texts(record, rewrite, FIELD)

    def altered(self, text: str, random: np.random.Generator) -> str:
        """The text with words replaced, then swapped, then left out, and letters changed."""
        parts = _WORD.split(text)
        words = parts[1::2]
        if not words:
            return text
        if self.config.synonyms is not None:
            chosen = random.random(len(words)) < self.config.synonyms.share
            words = [self._synonym(word, random) if one else word for word, one in zip(words, chosen, strict=True)]
        for first in np.flatnonzero(random.random(len(words)) < self.config.swap).tolist():
            second = int(random.integers(len(words)))
            words[first], words[second] = words[second], words[first]
        kept = random.random(len(words)) >= self.config.deletion
        kept[random.integers(len(words))] = True  # a text without words would teach nothing
        if self.config.noise:
            words = [_noisy(word, self.config.noise, random) for word in words]
        spaced = [word + after for word, after, keep in zip(words, parts[2::2], kept, strict=True) if keep]
        return parts[0] + "".join(spaced)

    def _synonym(self, word: str, random: np.random.Generator) -> str:
        core = _CORE.search(word)
        known = self.synonyms.get(core[0].lower()) if core else None
        if core is None or not known:
            return word
        other = known[int(random.integers(len(known)))]
        if core[0][0].isupper():
            other = other[:1].upper() + other[1:]
        return word[: core.start()] + other + word[core.end() :]


def copies_of(options: config.AugmentationConfig | None, side: Split) -> int:
    """How many altered copies there are of each record on this side."""
    return options.copies if options is not None and side == TRAIN else 0


def augmenter(options: config.AugmentationConfig, materials: Materials, seed: int, pulse: Pulse) -> Augmenter:
    """What makes the copies that the document asks for; raises what `read_synonyms` and `back_translator` do."""
    synonyms = read_synonyms(materials.synonyms) if materials.synonyms is not None else {}
    named = options.back_translation
    translate = back_translator(named, materials.translators, seed, pulse) if named is not None else None
    return Augmenter(options, synonyms, seed, translate)


def read_synonyms(file: File) -> Synonyms:
    """The words of a JSON file; raises DataError for one that holds anything else."""
    try:
        known = json.loads(file.path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file.name}: not readable as JSON ({error}): write an object of words and lists of words") from error
    if not isinstance(known, dict):
        raise DataError(f"{file.name}: a JSON {type(known).__name__} and not an object: write words and lists of words")
    for word, others in known.items():
        if not isinstance(others, list) or not all(isinstance(other, str) and other for other in others):
            raise DataError(f"{file.name}: {word!r} has {others!r} and not a list of words: correct or remove it")
    return known


def _noisy(word: str, share: float, random: np.random.Generator) -> str:
    letters = list(word)
    for place in np.flatnonzero(random.random(len(letters)) < share).tolist():
        match int(random.integers(3)):
            case 0 if len(word) > 1:
                letters[place] = ""
            case 1:
                letters[place] *= 2
            case _ if place + 1 < len(letters):
                letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters) or word
