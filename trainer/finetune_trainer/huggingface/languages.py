"""Multilingual translation models: the tokens that select the source and the target language."""

from __future__ import annotations

import difflib
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from finetune_trainer.config import LanguagesConfig
from finetune_trainer.protocol.outcome import ConfigurationError


class TargetLanguage(NamedTuple):
    """The token that texts in the target language begin with, and the setting of generation that takes it.

    The token follows the one that decoding starts with (NLLB, M2M100, mBART-50) or replaces it (mBART).
    """

    token_id: int
    setting: Literal["forced_bos_token_id", "decoder_start_token_id"]

    def configure(self, model: Any) -> None:
        """Make the model begin all texts that it generates with the token."""
        setattr(model.generation_config, self.setting, self.token_id)
        if self.setting == "decoder_start_token_id":  # training reads it from the configuration
            model.config.decoder_start_token_id = self.token_id


def set_languages(
    tokenizer: PreTrainedTokenizerBase, languages: LanguagesConfig | None, field: str
) -> TargetLanguage | None:  # fmt: skip
    """Make the tokenizer add the languages' tokens to source and target texts; None for a tokenizer without languages.

    Raises ConfigurationError, which begins with `field`, for languages that are missing, unknown, or not supported.
    """
    tokenizer_name = type(tokenizer).__name__
    if not hasattr(tokenizer, "set_src_lang_special_tokens"):
        if languages is not None:
            raise ConfigurationError(
                f"{field}: a {tokenizer_name} has no language tokens: remove it, and name the language in prefix if the model "
                "expects that"
            )
        return None
    if languages is None:
        raise ConfigurationError(f"{field}: a {tokenizer_name} adds language tokens to each text: set source and target")
    source_id = _language_token_id(tokenizer, f"{field}.source", languages.source)
    target_id = _language_token_id(tokenizer, f"{field}.target", languages.target)
    tokenizer.src_lang, tokenizer.tgt_lang = languages.source, languages.target
    tokenizer.set_tgt_lang_special_tokens(languages.target)
    is_prefix = target_id in tokenizer.prefix_tokens
    tokenizer.set_src_lang_special_tokens(languages.source)
    assert source_id in tokenizer.prefix_tokens + tokenizer.suffix_tokens, "the tokenizer ignores the source language"
    return TargetLanguage(target_id, "forced_bos_token_id" if is_prefix else "decoder_start_token_id")


def _language_token_id(tokenizer: Any, field: str, code: str) -> int:
    tokens = _language_tokens(tokenizer)
    if code not in tokens:
        closest = difflib.get_close_matches(code, sorted(tokens), n=3, cutoff=0.0)
        raise ConfigurationError(
            f"{field}: a {type(tokenizer).__name__} does not support {code}: use one of its codes, such as {', '.join(closest)}"
        )
    return int(tokenizer.convert_tokens_to_ids(tokens[code]))


def _language_tokens(tokenizer: Any) -> dict[str, str]:
    """The token of each language code. Those of M2M100 differ from the codes; NLLB and mBART have no list of them."""
    if listed := getattr(tokenizer, "lang_code_to_token", None):
        return dict(listed)
    common_tokens = {token for token in tokenizer.special_tokens_map.values() if type(token) is str}
    return {token: token for token in set(tokenizer.all_special_tokens) - common_tokens}
