"""Models that translate between many languages are told by a token which one a text is in, and which one to write."""

from __future__ import annotations

import difflib
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from finetune_trainer.config import LanguagesConfig
from finetune_trainer.protocol.outcome import ConfigurationError


class Beginning(NamedTuple):
    """The token that texts in the target language begin with, and what generation calls its place.

    It follows the token that decoding starts with (NLLB, M2M100, mBART-50), or is that one (mBART).
    """

    token: int
    place: Literal["forced_bos_token_id", "decoder_start_token_id"]

    def instruct(self, model: Any) -> None:
        """Has the model begin what it writes with it."""
        setattr(model.generation_config, self.place, self.token)
        if self.place == "decoder_start_token_id":  # what the decoder reads in training is made with the configuration's
            model.config.decoder_start_token_id = self.token


def choose(tokenizer: PreTrainedTokenizerBase, languages: LanguagesConfig | None, field: str) -> Beginning | None:
    """Has the tokenizer put the languages' tokens beside texts to read and to write; None if it has none.

    Raises ConfigurationError, naming the field, where languages are missing, unknown, or of no use.
    """
    kind = type(tokenizer).__name__
    if not hasattr(tokenizer, "set_src_lang_special_tokens"):
        if languages is not None:
            raise ConfigurationError(
                f"{field}: a {kind} writes no language beside a text: remove it, and put what the model wants into prefix"
            )
        return None
    if languages is None:
        raise ConfigurationError(f"{field}: a {kind} writes a language beside each text: give source and target")
    source, target = (_token(tokenizer, kind, f"{field}.{name}", code) for name, code in languages)
    tokenizer.src_lang, tokenizer.tgt_lang = languages.source, languages.target
    tokenizer.set_tgt_lang_special_tokens(languages.target)
    leads = target in tokenizer.prefix_tokens
    tokenizer.set_src_lang_special_tokens(languages.source)
    assert source in tokenizer.prefix_tokens + tokenizer.suffix_tokens
    return Beginning(target, "forced_bos_token_id" if leads else "decoder_start_token_id")


def _token(tokenizer: Any, kind: str, field: str, code: str) -> int:
    # M2M100's codes are not its tokens; NLLB and mBART have no list of codes apart from them.
    others = set(tokenizer.all_special_tokens) - {
        token for token in tokenizer.special_tokens_map.values() if type(token) is str
    }
    own = getattr(tokenizer, "lang_code_to_token", None) or {token: token for token in others}
    if code not in own:
        near = difflib.get_close_matches(code, sorted(own), n=3, cutoff=0.0)
        raise ConfigurationError(f"{field}: a {kind} knows no {code}: use one of its codes, such as {', '.join(near)}")
    return int(tokenizer.convert_tokens_to_ids(own[code]))
