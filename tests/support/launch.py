"""Runs a whole rank: `python -m finetune_trainer.training` with its command line, document and event pipe."""

from __future__ import annotations

import itertools
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ranks import Place

from finetune_trainer.protocol.events import Ended, Event, StepTime, parse
from finetune_trainer.protocol.outcome import Outcome
from finetune_trainer.training import __main__ as rank
from finetune_trainer.training.engine import merge

WORDS = [
    "the", "a", "one", "two", "red", "green", "blue", "cat", "dog", "bird", "sees", "eats", "likes", "sleeps", "here", "there",
]  # fmt: skip


@dataclass
class RankResult:
    """Exit code and all events of one rank; the last event has its outcome."""

    code: int
    events: list[Event]

    @property
    def outcome(self) -> Outcome:
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last.outcome

    @property
    def activities(self) -> list[str]:
        """The rank's activities in order, without repetitions."""
        activities = [event.activity for event in self.events if event.event == "alive"]
        return [activity for activity, _ in itertools.groupby(activities)]


def write_document(folder: Path, **changes: Any) -> Path:
    """Write a document over a small corpus, with the changes merged into it; returns its path."""
    lines = [" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(3 + i % 9)) for i in range(300)]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    document: dict[str, Any] = {
        "model": {
            "initialization": "Scratch",
            "config": {
                "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
            },
            "tokenizer": {"train": {"vocabSize": 300}},
        },
        "data": {"train": [{"source": f"file://{folder}/train.jsonl"}], "evaluationFraction": 0.1, "maxLength": 32},
        "training": {
            "maxSteps": 6, "batchSize": 8, "microBatchSize": 2, "logEverySteps": 1, "optimizer": {"learningRate": 0.01},
        },
        "evaluation": {"everySteps": 3},
        "checkpoint": {"storage": f"file://{folder}/storage"},
    }  # fmt: skip
    path = folder / "train.json"
    path.write_text(json.dumps(merge(document, changes)))
    return path


def run_rank(place: Place, document: Path, signals: dict[int, tuple[int, int]] | None = None) -> RankResult:
    """Run a whole rank. `signals` maps a rank to the signal that it gets and the number of its steps before that."""
    number, steps_before_signal = (signals or {}).get(place.rank, (0, 0))
    events: list[Event] = []

    def read_events(descriptor: int) -> None:
        steps = 0
        with open(descriptor, "rb") as pipe:
            for line in pipe:
                event = parse(line)
                events.append(event)
                if isinstance(event, StepTime):
                    steps += 1
                    if number and steps == steps_before_signal:
                        os.kill(os.getpid(), number)

    reading, writing = os.pipe()
    reader = threading.Thread(target=read_events, args=(reading,))
    reader.start()
    folder = document.parent
    code = rank.main(
        [
            "--document", str(document), "--job", "tests/tiny", "--rank", str(place.rank), "--world-size", str(place.size),
            "--local-rank", str(place.rank), "--processes-per-node", str(place.size), "--master", place.master,
            "--attempt", "attempt", "--work-dir", str(folder / "work"), "--cache-dir", str(folder / "cache"),
            "--telemetry-fd", str(writing),
        ]
    )  # fmt: skip
    os.close(writing)
    reader.join()
    return RankResult(code, events)
