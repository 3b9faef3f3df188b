"""Loads the model's tokenizer, or trains a new one on the job's data."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune_trainer.config import ModelConfig, TokenizerConfig
from finetune_trainer.huggingface.model_folder import has_tokenizer, validate_files
from finetune_trainer.huggingface.pretrained import load_pretrained_tokenizer
from finetune_trainer.models.source import fetch_model_folder
from finetune_trainer.models.tokenizer_training import Corpus, train_tokenizer_once
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import TOKENIZER_FILES, localize

FIELD = "spec.model.tokenizer.source"


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
    own_folder = None if config.source is None else fetch_model_folder(config, cache=cache, credentials=credentials)
    if config.tokenizer is None:
        assert own_folder is not None, "the document's rules require a source"
        folder, source = own_folder, f"spec.model.source: {config.source}"
        remedy = "set model.tokenizer.source to that of its family"
    else:
        folder = _fetch_tokenizer(config.tokenizer, cache, credentials)
        source, remedy = f"{FIELD}: {config.tokenizer.source}", "name another source"
    if not has_tokenizer(folder):
        raise ConfigurationError(f"{source} contains no tokenizer, such as tokenizer.json: {remedy}")
    return load_pretrained_tokenizer(folder, source, trust_remote_code=config.trust_remote_code)


def _fetch_tokenizer(config: TokenizerConfig, cache: Path, credentials: Credentials) -> Path:
    """The local folder of `model.tokenizer.source`; raises ConfigurationError for damaged files."""
    assert config.source is not None, "the document's rules require a source"
    folder = localize(
        config.source, cache=cache, credentials=credentials, secret=config.credentials, field=FIELD, patterns=TOKENIZER_FILES,
        revision=config.revision,
    )  # fmt: skip
    validate_files(folder, FIELD)
    return folder
