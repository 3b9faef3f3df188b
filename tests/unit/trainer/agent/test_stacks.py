"""Stacks of real processes, and what is read from them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.agent import stacks
from finetune_trainer.agent.stacks import Frame, Stack

SCRIPT = """
import faulthandler, signal, sys, threading, time
faulthandler.register(signal.SIGUSR1, file=open(sys.argv[1], "a"), all_threads=True)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def blocked():
    time.sleep(60)
print("ready", flush=True)
blocked()
"""
ALL_REDUCE = """Thread 0x00007f0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait
  File "/v/lib/python3.11/site-packages/tqdm/_monitor.py", line 60 in run

Current thread 0x00007f1 (most recent call first):
  File "/v/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 2957 in all_reduce
  File "/app/trainer/finetune_trainer/distributed/process_group.py", line 40 in all_reduce_sum
  File "/app/trainer/finetune_trainer/agent/guard.py", line 32 in main
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "stack")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    yield process
    process.kill()
    process.communicate()


def test_a_process_tells_where_it_stands(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    for _ in range(2):  # the second dump does not repeat the first
        stack = stacks.dump(process.pid, tmp_path / "stack")
        assert stack.summary == "is in blocked (<string>:6)"
        assert stack.text.count("Current thread") == 1
    assert not stack.is_waiting


def test_a_stopped_process_is_left_alone(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    assert stacks.dump(process.pid, tmp_path / "stack").summary == "is stopped by a signal (process state T)"


def test_a_process_without_a_handler_is_not_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert stacks.dump(process.pid, tmp_path / "stack") == Stack()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/usr/lib/python3.11/threading.py", "threading.py"),
        ("/v/lib/python3.11/site-packages/torch/nn/module.py", "torch/nn/module.py"),
        ("/app/trainer/finetune_trainer/training/loop.py", "finetune_trainer/training/loop.py"),
        ("/home/me/reward.py", "/home/me/reward.py"),
    ],
)
def test_names_files_as_people_know_them(file: str, name: str) -> None:
    text = f'Current thread 0x0 (most recent call first):\n  File "{file}", line 7 in run\n'
    assert Stack(text).frames == [Frame(name, 7, "run")]


def test_names_the_innermost_call_and_that_of_the_trainer() -> None:
    stack = Stack(ALL_REDUCE)
    assert stack.is_waiting
    assert stack.summary == (
        "is in all_reduce (torch/distributed/distributed_c10d.py:2957), called by all_reduce_sum "
        "(finetune_trainer/distributed/process_group.py:40)"
    )
