"""Data may exceed memory: preparation and evaluation need no more memory for large data than for small data."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.support import ranks, tiny
from tests.support.ranks import Place

from finetune_trainer import config
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import BatchBuilder, PrefetchLoader
from finetune_trainer.data.loading.dataset import TOKENS, ArrowDataset
from finetune_trainer.data.loading.sampler import sequential
from finetune_trainer.data.preprocessing.examples import ExampleWriter
from finetune_trainer.data.preprocessing.prepare import prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.objectives.causal_lm import CausalLM
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.evaluation import evaluate

MEGABYTE = 2**20
SCALE = 10  # large data in relation to small data


def anonymous_bytes() -> int:
    """Anonymous memory of this process in bytes; mapped rows are in the page cache, which can be reclaimed."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) * 1024


def peak(work: Callable[[], Any]) -> int:
    """The peak of anonymous memory, in bytes, while `work` runs."""
    done, samples = threading.Event(), [anonymous_bytes()]

    def watch() -> None:
        while not done.wait(0.003):
            samples.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(samples)


def peaks(place: Place, work: Callable[[Path, int], Any], folder: Path, sizes: list[int]) -> list[int]:
    """The peak of each size in turn; runs in a new process."""
    return [peak(partial(work, folder / str(index), size)) for index, size in enumerate(sizes)]


def prepare_rows(folder: Path, megabytes: int) -> None:
    """Prepare packed sequences from rows of one kilobyte; even small data exceeds the batches of every step."""
    folder.mkdir()
    filler = "paper " * 150
    with (folder / "rows.jsonl").open("w") as file:
        for number in itertools.count():
            if file.tell() > megabytes * MEGABYTE:
                break
            file.write(json.dumps({"text": f"{' '.join(f'w{number * k % 63}' for k in range(30))} {filler}{number}"}) + "\n")
    data = {"train": [{"source": f"file://{folder}/rows.jsonl"}], "maxLength": 2**15, "checks": {"comparedRows": 200}}
    spec = config.TrainSpec.model_validate(tiny.spec().document() | {"data": data})
    result = prepare(
        spec,
        CausalLM.from_spec(spec, tiny.tokenizer()).encoder,
        SourceResolver(spec.objective, folder / "cache", Credentials()),
    )
    assert result.report.train.documents > 900 * megabytes
    assert result.report.train.tokens > 170 * result.report.train.documents


def evaluate_rows(folder: Path, rows: int) -> None:
    """Evaluate on rows of 32 tokens."""
    folder.mkdir()
    objective = CausalLM.from_spec(tiny.spec(), tiny.tokenizer())
    writer = ExampleWriter(folder / "rows.arrow", objective.encoder.fields)
    random = np.random.default_rng(0)
    for _ in range(rows // 100):
        writer.write([{TOKENS: random.integers(1, tiny.VOCABULARY, 32).astype(np.int32)} for _ in range(100)])
    writer.close()
    held_out, here = ArrowDataset(writer.path), ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
    with PrefetchLoader(BatchBuilder(held_out, objective.collator, Layout(), 0, 1, 16, 0), sequential(rows, 16)) as groups:
        result = evaluate(tiny.llama(), objective, groups, here, lambda: True)
    assert result is not None
    assert result.metrics["loss"] > 4


def test_preparation_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    [[_, small, large]] = ranks.run(peaks, 1, prepare_rows, tmp_path, [3, 3, 3 * SCALE])
    # Texts or tokens kept in memory would make up the whole difference; fragmentation was a fifth of it.
    assert large - small < 3 * (SCALE - 1) * MEGABYTE / 2


def test_evaluation_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    [[_, few, many]] = ranks.run(peaks, 1, evaluate_rows, tmp_path, [1000, 1000, 1000 * SCALE])
    kept = 1000 * (SCALE - 1) * 32 * tiny.VOCABULARY * 4  # the logits
    assert many - few < kept / 10
