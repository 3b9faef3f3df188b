"""The folder of the document's pretrained model on this machine, checked before anything is loaded from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from finetune_trainer.config import ModelConfig
from finetune_trainer.huggingface.model_folder import validate_model_folder, validate_weights
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.download import TOKENIZER_FILES, localize, localize_model

FIELD = "spec.model.source"


def fetch_model_folder(config: ModelConfig, *, cache: Path, credentials: Credentials, weights: bool = False) -> Path:
    """The local folder of `model.source`, with its weights on request; `config` must have a source.

    Raises ConfigurationError, which begins with the field, for a folder that holds no model of transformers and for files that
    are damaged. The weights of a source on this machine are checked always, so that a run does not prepare its data first.
    """
    assert config.source is not None, "the document's rules require a source for initialization: Pretrained"
    fetch = localize_model if weights else partial(localize, patterns=TOKENIZER_FILES)
    folder = fetch(
        config.source, cache=cache, credentials=credentials, secret=config.credentials, field=FIELD, revision=config.revision
    )
    validate_model_folder(folder, FIELD, config.source)
    is_on_this_machine = cache not in folder.parents
    if weights or (is_on_this_machine and config.initialization == "Pretrained"):
        validate_weights(folder, FIELD, config.source)
    return folder
