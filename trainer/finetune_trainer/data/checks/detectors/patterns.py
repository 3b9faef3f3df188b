"""The built-in detector: patterns, confirmed by checksums. It finds no names and no postal addresses, which have no pattern."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

from finetune_trainer.data.checks.detectors.base import Detector, OnMatch

# The length of an IBAN in characters by country, from the registry of ISO 13616.
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27,
    "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


class Kind(NamedTuple):
    """One kind of personal data: its pattern, and how many characters of a match belong to it (0: none, a false match)."""

    name: str
    pattern: re.Pattern[str]
    length: Callable[[str], int] = len


def luhn(number: str) -> bool:
    """Whether the digits end with the correct check digit (ISO/IEC 7812)."""
    digits = [int(character) for character in reversed(number) if character.isdigit()]
    total = sum(digits[::2])
    for digit in digits[1::2]:
        total += sum(divmod(2 * digit, 10))
    return total % 10 == 0


def _card_length(text: str) -> int:
    return len(text) if luhn(text) and len(set(text)) > 2 else 0


def _iban_length(text: str) -> int:
    ends = [position for position, character in enumerate(text, start=1) if character != " "]
    length = IBAN_LENGTHS.get(text[:2], 0)
    if not 0 < length <= len(ends):
        return 0
    end = ends[length - 1]
    compact = text[:end].replace(" ", "")
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return end if int(number) % 97 == 1 else 0


def _public_address_length(text: str) -> int:
    return len(text) if ipaddress.ip_address(text).is_global else 0


def _phone_length(text: str) -> int:
    return len(text) if sum(map(str.isdigit, text)) >= 8 else 0


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
KINDS = (
    Kind("EMAIL", re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")),
    Kind("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}"), _iban_length),
    Kind("CREDIT_CARD", re.compile(
        r"(?<![\w.-])(?:3[47]\d{2}([ -]?)\d{6}\1\d{5}|[2-6]\d{3}([ -]?)\d{4}\2\d{4}\2\d{4})(?![\w-])"
    ), _card_length),
    Kind("US_SSN", re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")),
    Kind("IP_ADDRESS", re.compile(rf"(?<![\w.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?\w)"), _public_address_length),
    # International with a country code, North American, or national with a leading zero.
    Kind("PHONE", re.compile(
        r"(?<![\w.+-])(?:\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}"
        r"|(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}"
        r"|(?<!\d )\(?0[1-9]\d{1,3}\)?[ /-]\d{3,4}[ -]?\d{3,5})(?![\w-])"
    ), _phone_length),
)  # fmt: skip
_DIGITS = re.compile(r"\d(?:\W{0,2}\d){3}")  # in every kind but e-mail addresses; most texts have no such digits


def _replace(text: str, on_match: OnMatch) -> str:
    email, *kinds_with_digits = KINDS
    kinds: list[Kind] = []
    if "@" in text:
        kinds.append(email)
    if _DIGITS.search(text):
        kinds += kinds_with_digits
    for kind in kinds:

        def placeholder(match: re.Match[str], kind: Kind = kind) -> str:
            length = kind.length(match[0])
            if not length:
                return match[0]
            on_match(kind.name)
            return f"[{kind.name}]{match[0][length:]}"

        text = kind.pattern.sub(placeholder, text)
    return text


BUILT_IN = Detector("BuiltIn", _replace)
