"""Trained tokens per second: a rank of our trainer compared with transformers.Trainer on the same DeepSpeed engine.

Both sides use one process and the same weights, rows, batch sizes, AdamW, float32 and DeepSpeed configuration. Only tokens with
a label count, and the first steps do not count. Our side runs in the environment that an agent sets for its ranks, the peer in
the system's, or with --same-memory in ours.

fixed    Rows of one length (except the last), so there is no padding: compares the training loops alone.
padded   Functions and classes of Python's standard library, truncated to 1024 tokens. Trainer pads each micro-batch to its
         longest sequence (DataCollatorForLanguageModeling), which is its default. Our side packs the same documents into rows
         of 1024 tokens, with attention restricted to each document. Both compute micro-batches of 16 sequences of at most
         1024 tokens, and therefore need memory for the same activations.
padded8  As padded, with micro-batches of 8 sequences, which need less padding; for information.
grouped  As padded, with Trainer's train_sampling_strategy="group_by_length", which is not its default and gives up the random
         order; for information.

    .venv/bin/python benchmarks/training_throughput.py [--cases fixed padded] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from paired import Benchmark, Figure, Sample, run_script

from finetune_trainer.agent.environment import KEEP_FREED_MEMORY

ROOT = Path(__file__).parents[1]
CORPUS_MEGABYTES = 4
MODEL = {
    "model_type": "llama",
    "hidden_size": 384,
    "intermediate_size": 1152,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


class Case(NamedTuple):
    """The data and batch sizes of one case, and the bound of its ratio."""

    title: str
    corpus: str
    length: int
    packed: bool
    batch: int
    micro: int
    sampling: str
    steps: int
    min_ratio: float | None


CASES = {
    "fixed": Case("rows of 512 tokens", "whole", 512, False, 8, 4, "random", 12, 1.0),
    "padded": Case("functions, 16 sequences at a time", "functions", 1024, True, 16, 16, "random", 6, 3.0),
    "padded8": Case("functions, 8 sequences at a time", "functions", 1024, True, 8, 8, "random", 6, None),
    "grouped": Case("functions, 16 sequences grouped by length", "functions", 1024, True, 16, 16, "group_by_length", 6, None),
}


def document(case: Case, folder: Path, *, packed: bool, steps: int, seed: int) -> dict[str, Any]:
    """The trainer's part of a FineTuneJob."""
    return {
        "model": {"source": f"file://{folder / 'model'}"},
        "data": {
            "train": [{"source": f"file://{folder / case.corpus}.jsonl"}],
            "maxLength": case.length,
            "packing": packed,
            # Longer documents are truncated on both sides; "whole" is one document that is split into rows of one length.
            "overlong": "Truncate" if case.corpus == "functions" else "Split",
        },
        "training": {
            "maxSteps": steps,
            "seed": seed,
            "batchSize": case.batch,
            "microBatchSize": case.micro,
            "precision": "Float32",
            "optimizer": {"learningRate": 1e-3, "weightDecay": 0.1},
        },
        "deepspeed": {"zeroStage": 1},
        "checkpoint": {"storage": f"file://{folder / 'storage'}", "everySteps": 1_000_000},
    }


def prepare(folder: Path) -> None:
    """Write the corpus as functions and as one document, and create a model with random weights and a tokenizer."""
    functions, whole = folder / "functions.jsonl", folder / "whole.jsonl"
    command = [sys.executable, str(ROOT / "examples/stdlib_data.py"), str(functions), "--megabytes", str(CORPUS_MEGABYTES)]
    subprocess.run(command, check=True)
    texts = [json.loads(line)["text"] for line in functions.open()]
    whole.write_text(json.dumps({"text": "\n".join(texts)}) + "\n")
    run_script("throughput_model.py", functions, folder / "model", json.dumps(MODEL), environment={})


class Sides:
    """Both sides of one case. Both sides of a pair use the same seed, and the same order of rows unless one packs."""

    def __init__(self, case: Case, options: argparse.Namespace, folder: Path) -> None:
        self._case, self._options, self._folder = case, options, folder
        self._seed = 41

    def peer(self) -> Sample:
        """Measure transformers.Trainer."""
        self._seed += 1
        return self._run("peer", packed=False)

    def ours(self) -> Sample:
        """Measure a rank of finetune_trainer."""
        return self._run("ours", packed=self._case.packed)

    def _run(self, name: str, *, packed: bool) -> Sample:
        case, options = self._case, self._options
        steps = options.warm_up + (options.steps or case.steps)
        settings = {"OMP_NUM_THREADS": str(options.threads), "DS_ACCELERATOR": "cpu", "TOKENIZERS_PARALLELISM": "false"}
        document_file = self._folder / "document.json"
        document_file.write_text(json.dumps(document(case, self._folder, packed=packed, steps=steps, seed=self._seed)))
        return run_script(
            f"throughput_{name}.py", document_file, self._folder, "--warm-up", options.warm_up, "--sampling", case.sampling,
            environment=settings | (KEEP_FREED_MEMORY if name == "ours" or options.same_memory else {}),
        )  # fmt: skip


def main() -> None:
    """Measure both sides and check the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="(default: all)")
    parser.add_argument("--steps", type=int, help="measured optimizer steps (default: 12 for fixed, otherwise 6)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the measured ones (default: %(default)s)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="threads of each side (default: all cores, %(default)s)")
    parser.add_argument("--same-memory", action="store_true", help="let the peer keep freed memory, as our ranks do")
    benchmark = Benchmark("Training throughput", parser, "torch", "deepspeed", "transformers", "accelerate", "trl", pairs=5)
    options = benchmark.config
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        folder = Path(name)
        prepare(folder)
        for case in (CASES[name] for name in options.cases):
            figures = (
                Figure("tokens_per_second", "trained tokens", "tokens/s", at_least=case.min_ratio),
                Figure("tokens_per_cpu_second", "trained tokens per second of processor time", "tokens/s"),
                Figure("padding", "share of padding", "share"),
            )
            sides = Sides(case, options, folder)
            benchmark.measure(case.title, sides.peer, sides.ours, figures)
    benchmark.finish()


if __name__ == "__main__":
    main()
