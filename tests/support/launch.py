"""Whole ranks in the tests: `rank.main` with its command line, its document and its telemetry pipe."""

from __future__ import annotations

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
    "the",
    "a",
    "one",
    "two",
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "bird",
    "sees",
    "eats",
    "likes",
    "sleeps",
    "here",
    "there",
]


@dataclass
class Heard:
    """Exit code and all events of one rank; the last event is how it ended."""

    code: int
    events: list[Event]

    @property
    def outcome(self) -> Outcome:
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last.outcome

    @property
    def activities(self) -> list[str]:
        """What the rank did, each activity once for each time it began."""
        told = [event.activity for event in self.events if event.event == "alive"]
        return [activity for index, activity in enumerate(told) if index == 0 or told[index - 1] != activity]


def prepare(folder: Path, **changes: Any) -> Path:
    """A document over a small corpus, with the changes merged into it; where it lies."""
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


def live(place: Place, document: Path, signals: dict[int, tuple[int, int]] | None = None) -> Heard:
    """The rank's whole life. `signals` tells which rank gets which signal after how many of its steps."""
    number, after = (signals or {}).get(place.rank, (0, 0))
    events: list[Event] = []

    def listen(descriptor: int) -> None:
        with open(descriptor, "rb") as pipe:
            for line in pipe:
                events.append(parse(line))
                if (
                    number
                    and sum(isinstance(event, StepTime) for event in events) == after
                    and isinstance(events[-1], StepTime)
                ):
                    os.kill(os.getpid(), number)

    reading, writing = os.pipe()
    listener = threading.Thread(target=listen, args=(reading,))
    listener.start()
    folder = document.parent
    code = rank.main(
        [
            "--document", str(document), "--job", "tests/tiny", "--rank", str(place.rank), "--world-size", str(place.size),
            "--local-rank", str(place.rank), "--processes-per-node", str(place.size), "--master", place.master,
            "--attempt", "life", "--work-dir", str(folder / "work"), "--cache-dir", str(folder / "cache"),
            "--telemetry-fd", str(writing),
        ]
    )  # fmt: skip
    os.close(writing)
    listener.join()
    return Heard(code, events)
