"""A store whose host was replaced is given up, although it still answers."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from tests.support.waiting import wait_for

from finetune_trainer.agent.host_address import HostAddress
from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.store import Store, StoreLostError

OLD, NEW = "10.0.0.1", "10.0.0.2"
FAILS = "fails"


def resolver(answers: list[str]) -> Callable[[str], set[str]]:
    """Answers each lookup with one or several addresses, or fails; the last answer repeats."""

    def resolve(_host: str) -> set[str]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer == FAILS:
            raise OSError("the name server does not answer")
        return set(answer.split())

    return resolve


@pytest.mark.parametrize(
    ("answers", "has_moved"),
    [
        pytest.param([OLD], False, id="the same address"),
        pytest.param([NEW], True, id="another address"),
        pytest.param([f"{OLD} {NEW}"], False, id="both, while the old pod terminates"),
        pytest.param([NEW, OLD], False, id="another address in one lookup only"),
        pytest.param([FAILS], False, id="no name server"),
        pytest.param([""], False, id="no address"),
        pytest.param([NEW, FAILS, FAILS, NEW, OLD], True, id="failed lookups in between say nothing"),
    ],
)
def test_has_moved(answers: list[str], has_moved: bool) -> None:
    lookups, seen, started = list(answers), [], threading.Event()
    resolve, verdicts = resolver(lookups), []

    def recording(host: str) -> set[str]:
        started.wait()
        verdicts.append(address.has_moved)
        seen.append(host)
        return resolve(host)

    address = HostAddress("demo-0.demo", OLD, recording, interval=0.005)
    started.set()
    wait_for(lambda: len(seen) > len(answers) + 4, "lookups", 20)
    address.close()
    assert any(verdicts) == has_moved
    assert set(seen) == {"demo-0.demo"}


def test_store_of_a_replaced_host_is_lost_although_it_answers() -> None:
    [port] = free_ports(1)
    host = Store("localhost", port, is_host=True, timeout=10)
    host.write("round", "1")
    answers = ["127.0.0.1 ::1"]
    store = Store("localhost", port, False, 10, lambda name, own: HostAddress(name, own, resolver(answers), interval=0.005))
    for _ in range(10):
        assert store.read(["round"]) == ["1"]
        time.sleep(0.01)
    answers[0] = NEW

    def is_lost() -> bool:
        try:
            store.read(["round"])
        except StoreLostError as error:
            return "the pod of the host was replaced" in str(error)
        return False

    wait_for(is_lost, "the loss of the store", 20)


def test_lookups_end_with_the_store() -> None:
    [port] = free_ports(1)
    host = Store("localhost", port, is_host=True, timeout=10)
    host.write("round", "1")
    before = set(threading.enumerate())
    store = Store("localhost", port, False, 10, lambda name, own: HostAddress(name, own, lambda _: {own}, interval=0.005))
    [thread] = [thread for thread in set(threading.enumerate()) - before if thread.name == "host-address"]
    reference = weakref.ref(store)
    del store
    gc.collect()
    assert reference() is None
    wait_for(lambda: not thread.is_alive(), "the end of the thread", 20)
