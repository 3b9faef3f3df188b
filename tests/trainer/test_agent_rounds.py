"""Agents as real processes with ranks that are real processes, and what happens when either is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from finetune_trainer.agent import command
from finetune_trainer.agent.settings import Limits, Settings
from finetune_trainer.outcome import Outcome, Reason, RunStatus

FAKE_RANK = Path(__file__).parents[1] / "unit" / "trainer" / "agent"
PATIENCE = 30.0
LIMITS = Limits(first_cause=0.5, kill_grace=0.2, farewell=3.0, reconnect_most=0.5)

# Importing torch takes seconds: a server process does it once, and each agent is a fork of it.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["finetune_trainer.agent.command"])


def start_agent(settings: Settings) -> None:
    os.setsid()
    os.environ["PYTHONPATH"] = str(FAKE_RANK)
    raise SystemExit(command.run(settings))


def wait_until[T](look: Callable[[], T], what: str) -> T:
    until = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < until, f"{what}: not within {PATIENCE} s"
        time.sleep(0.02)
    return seen
