"""Loads the model's tokenizer, or trains a new one on the job's data."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune_trainer.config import ModelConfig
from finetune_trainer.huggingface.pretrained import load_pretrained_tokenizer
from finetune_trainer.models.tokenizer_training import Corpus, train_tokenizer_once
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import TOKENIZER_FILES, localize


def load_tokenizer(
    config: ModelConfig,
    corpus: Corpus,
    *,
    adds_special_tokens: bool = False,
    sentinels: int = 0,
    cache: Path,
    credentials: Credentials,
) -> PreTrainedTokenizerBase:
    """The tokenizer of `model.tokenizer.source`, or that of the model, or one that is trained on the corpus.

    `adds_special_tokens` and `sentinels` apply to a trained tokenizer; see `train_tokenizer`. Raises ConfigurationError,
    StorageError or DataError.
    """
    if config.tokenizer and config.tokenizer.train:
        return train_tokenizer_once(
            corpus, config.tokenizer.train.vocab_size, adds_special_tokens=adds_special_tokens, sentinels=sentinels,
            cache=cache,
        )  # fmt: skip
    section = config.tokenizer or config
    field = "spec.model.tokenizer.source" if config.tokenizer else "spec.model.source"
    assert section.source is not None, "the document's rules require a source"
    folder = localize(
        section.source, cache=cache, credentials=credentials, secret=section.credentials, field=field,
        patterns=TOKENIZER_FILES, revision=section.revision,
    )  # fmt: skip
    return load_pretrained_tokenizer(folder, f"{field}: {section.source}", trust_remote_code=config.trust_remote_code)
