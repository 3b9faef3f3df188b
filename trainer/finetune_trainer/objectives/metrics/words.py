"""Words of texts in any script, as metrics of generated texts count them."""

from __future__ import annotations

import unicodedata

import regex

BLEU_TOKENIZERS = ("13a", "zh", "char")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30fc"
"""Scripts that put no blanks between words; U+30FC is the long vowel of Japanese."""
_WORD = regex.compile(rf"(?V1)[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+")
_UNSPACED_CHARACTER = regex.compile(rf"[{_UNSPACED}]\p{{M}}*")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_HAN = regex.compile(r"\p{Han}")


def unicode_words(text: str) -> list[str]:
    """Lower-case words of letters, marks and digits; each character of a script without blanks between words is a word.

    Of ASCII texts these are the words that rouge_score finds.
    """
    words: list[str] = _WORD.findall(unicodedata.normalize("NFC", text).lower())
    return words


def separate_unspaced(text: str) -> str:
    """The text with blanks around each character of a script that has none between words."""
    separated: str = _UNSPACED_CHARACTER.sub(r" \g<0> ", text)
    return separated


def bleu_tokenizer(text: str) -> str:
    """sacrebleu's tokenizer for the script of a text: `char` for Japanese and for scripts of South East Asia, `zh` for Chinese
    characters without kana, and otherwise its default, `13a`."""
    if _KANA.search(text):
        return "char"
    if _HAN.search(text):
        return "zh"
    return "char" if _UNSPACED_CHARACTER.search(text) else "13a"
