"""The built-in detector of personal data: matches and false matches."""

from __future__ import annotations

import pytest

from finetune_trainer.data.checks.detectors.patterns import BUILT_IN, luhn


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("write to jane.doe+list@mail.example.co.uk, please", "write to [EMAIL], please"),
        ("<a@b.org>, c@d.net", "<[EMAIL]>, [EMAIL]"),
        ("call +49 30 1234567 now", "call [PHONE] now"),
        ("call +1-415-555-2671.", "call [PHONE]."),
        ("(415) 555-2671 or 415.555.2671", "[PHONE] or [PHONE]"),
        ("0151-2345678", "[PHONE]"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004, 378282246310005", "card [CREDIT_CARD], [CREDIT_CARD], [CREDIT_CARD]"),
        ("DE89 3704 0044 0532 0130 00 AND SO ON", "[IBAN] AND SO ON"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("ssn 078-05-1120", "ssn [US_SSN]"),
        ("from 8.8.8.8: ok", "from [IP_ADDRESS]: ok"),
    ],
)
def test_replaces_personal_data(text: str, scrubbed: str) -> None:
    assert BUILT_IN.scrub(text) == scrubbed
    assert BUILT_IN.find(text).total() == scrubbed.count("[")
    assert not BUILT_IN.find(scrubbed)


@pytest.mark.parametrize(
    "text",
    [
        "decorators such as @property, and a @ b",
        "user@localhost",
        "4111 1111 1111 1112 has a wrong check digit",
        "0000 0000 0000 0000",
        "DE88 3704 0044 0532 0130 00 has a wrong check number, and ZZ89 3704 0044 0532 0130 00 no country",
        "666-12-3456 and 123-00-4567 were never issued",
        "127.0.0.1, 192.168.1.17, 10.0.0.1 and 0.0.0.0 are not public",
        "version 1.2.3.4.5 and 999.1.1.1",
        "2024-01-02 10:00:00, 3.14159265358979, +120 and x = 1234567890123",
        "0x7fffffffffffffff, 1 2 3 4 5 6 7 8 9 10, range(100, 200)",
    ],
)
def test_keeps_similar_texts_that_are_not_personal(text: str) -> None:
    assert (BUILT_IN.scrub(text), BUILT_IN.find(text)) == (text, {})


def test_luhn_check_digit() -> None:
    assert luhn("79927398713")
    assert not any(luhn(f"7992739871{digit}") for digit in "012456789")
