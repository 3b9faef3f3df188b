"""The interface at which Gloo listens leads to the other nodes."""

from __future__ import annotations

import os
import socket

import psutil
import pytest

from finetune_trainer.protocol.gloo_interface import VARIABLE, choose_gloo_interface


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that the value after the test is removed
    monkeypatch.delenv(VARIABLE)


def addresses() -> list[tuple[str, str]]:
    return [
        (name, entry.address)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    ]


@pytest.mark.parametrize(("name", "address"), addresses())
def test_chooses_the_interface_of_the_address(name: str, address: str) -> None:
    """Rank 0 is its own master: the machine's own address is on its way to itself."""
    choose_gloo_interface(address)
    assert os.environ[VARIABLE] == name


def test_users_choice_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "ib0")
    choose_gloo_interface("127.0.0.1")
    assert os.environ[VARIABLE] == "ib0"


def test_leaves_an_unknown_host_to_the_connection_that_fails() -> None:
    choose_gloo_interface("no-such-host.invalid")
    assert VARIABLE not in os.environ
