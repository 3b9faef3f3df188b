"""Data may be larger than memory: neither preparing it nor evaluating on it keeps more of a large set than of a small one."""

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
TIMES = 10  # as large


def anonymous() -> int:
    """Bytes of this process that no file is behind: mapped rows come from the page cache, which gives them up when it must."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def peak(work: Callable[[], Any]) -> int:
    """The most memory, in bytes, that the process had while it worked."""
    done, most = threading.Event(), [anonymous()]

    def watch() -> None:
        while not done.wait(0.003):
            most.append(anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    work()
    done.set()
    watching.join()
    return max(most)


def peaks(place: Place, work: Callable[[Path, int], Any], folder: Path, sizes: list[int]) -> list[int]:
    """The peak of each size, one after the other, in a process of its own."""
    return [peak(partial(work, folder / str(index), size)) for index, size in enumerate(sizes)]


def prepared(folder: Path, megabytes: int) -> None:
    """Rows of a kilobyte become packed ones; small data too has more rows than are compared, encoded or packed at once."""
    folder.mkdir()
    filler = "paper " * 150
    with (folder / "rows.jsonl").open("w") as file:
        for number in itertools.count():
            if file.tell() > megabytes * MEGABYTE:
                break
            file.write(json.dumps({"text": f"{' '.join(f'w{number * k % 63}' for k in range(30))} {filler}{number}"}) + "\n")
    data = {"train": [{"source": f"file://{folder}/rows.jsonl"}], "maxLength": 2**15, "checks": {"comparedRows": 200}}
    spec = config.TrainSpec.model_validate(tiny.spec().document() | {"data": data})
    made = prepare(
        spec,
        CausalLM.from_spec(spec, tiny.tokenizer()).encoder,
        SourceResolver(spec.objective, folder / "cache", Credentials()),
    )
    assert made.report.train.documents > 900 * megabytes
    assert made.report.train.tokens > 170 * made.report.train.documents


def evaluated(folder: Path, rows: int) -> None:
    """So many rows of 32 tokens."""
    folder.mkdir()
    objective = CausalLM.from_spec(tiny.spec(), tiny.tokenizer())
    writer = ExampleWriter(folder / "rows.arrow", objective.encoder.fields)
    random = np.random.default_rng(0)
    for _ in range(rows // 100):
        writer.write([{TOKENS: random.integers(1, tiny.VOCABULARY, 32).astype(np.int32)} for _ in range(100)])
    writer.close()
    held_out, here = ArrowDataset(writer.path), ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
    with PrefetchLoader(BatchBuilder(held_out, objective.collator, Layout(), 0, 1, 16, 0), sequential(rows, 16)) as groups:
        found = evaluate(tiny.llama(), objective, groups, here, lambda: True)
    assert found is not None
    assert found.metrics["loss"] > 4


def test_preparing_takes_as_much_memory_for_large_data_as_for_small(tmp_path: Path) -> None:
    [[_, small, large]] = ranks.run(peaks, 1, prepared, tmp_path, [3, 3, 3 * TIMES])
    # Texts or tokens that were kept would be all of the difference; freed memory that lies in pieces was a fifth of it.
    assert large - small < 3 * (TIMES - 1) * MEGABYTE / 2


def test_an_evaluation_takes_as_much_memory_on_many_rows_as_on_few(tmp_path: Path) -> None:
    [[_, few, many]] = ranks.run(peaks, 1, evaluated, tmp_path, [1000, 1000, 1000 * TIMES])
    kept = 1000 * (TIMES - 1) * 32 * tiny.VOCABULARY * 4  # the logits
    assert many - few < kept / 10
