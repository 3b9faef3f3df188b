"""Time that training waits for data: our prefetching thread compared with torch's DataLoader in the main process.

Both sides build the same batches with the same code in the same order, and train the same model with torch's AdamW in one
process without DeepSpeed. The waiting time is the time to get the next step's batches; the first steps do not count.

words    Functions of Python's standard library, with whole-word masking drawn again in each epoch.
images   Handwritten digits of 64 x 64 pixels, with random crops and RandAugment drawn again in each epoch.

The training uses --threads threads. By default this leaves a core for the data, as on a node that trains on GPUs.

    .venv/bin/python benchmarks/data_wait.py [--cases words images] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from paired import Benchmark, Figure, Limit, Sample, run_script
from PIL import Image

from finetune_trainer.agent.environment import KEEP_FREED_MEMORY

ROOT = Path(__file__).parents[1]
SIZES = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
CASES: dict[str, dict[str, Any]] = {
    "words": {
        "model": {"config": {"model_type": "bert"} | SIZES, "tokenizer": {"train": {"vocabSize": 4000}}},
        "objective": {"type": "MaskedLM", "maskedLM": {"wholeWord": True}},
    },
    "images": {
        "model": {"config": {"model_type": "vit", "image_size": 64, "patch_size": 8} | SIZES},
        "objective": {
            "type": "ImageClassification",
            "imageClassification": {"imageSize": 64, "augmentation": {"randomCrop": {}, "randAugment": {}}},
        },
    },
}
FIGURES = (
    Figure("waiting", "time waiting for data", "share", at_most=0.25),
    Figure("steps_per_second", "optimizer steps", "steps/s"),
)
LIMITS = (Limit("waiting", "our time waiting for data", "share", at_most=0.02),)


def document(case: str, folder: Path) -> dict[str, Any]:
    """The trainer's part of a FineTuneJob."""
    return {
        "model": CASES[case]["model"] | {"initialization": "Scratch"},
        "data": {"train": [{"source": f"file://{folder / case}.jsonl"}], "maxLength": 128, "packing": False},
        "objective": CASES[case]["objective"],
        "training": {"batchSize": 16, "microBatchSize": 16},
        "checkpoint": {"storage": "file:///nowhere"},
    }


def prepare(folder: Path) -> None:
    """Write the data of both cases."""
    make = [sys.executable, str(ROOT / "examples/stdlib_data.py"), str(folder / "words.jsonl"), "--megabytes", "1"]
    subprocess.run(make, check=True)
    digits = sklearn.datasets.load_digits()
    with (folder / "images.jsonl").open("w") as file:
        for pixels, label in zip(digits.images, digits.target, strict=True):
            png = io.BytesIO()
            Image.fromarray((pixels * 15.9).astype(np.uint8)).convert("RGB").save(png, "png")
            file.write(json.dumps({"image": base64.b64encode(png.getvalue()).decode(), "label": int(label)}) + "\n")


def side(name: str, document_file: Path, options: argparse.Namespace) -> Sample:
    """Measure one side in a separate process."""
    return run_script(
        "data_wait_side.py", name, document_file, "--steps", options.steps, "--warm-up", options.warm_up,
        environment={"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"} | KEEP_FREED_MEMORY,
    )  # fmt: skip


def main() -> None:
    """Measure both sides and check the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="(default: all)")
    parser.add_argument("--steps", type=int, default=150, help="measured optimizer steps (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before the measured ones (default: %(default)s)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=max(1, cores - 1), help="threads of the training (default: %(default)s)")
    benchmark = Benchmark("Time that training waits for data", parser, "torch", "torchvision", "transformers")
    options = benchmark.config
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        folder = Path(name)
        prepare(folder)
        for case in options.cases:
            document_file = folder / f"{case}.json"
            document_file.write_text(json.dumps(document(case, folder)))
            title = f"{case}, {options.threads} of {cores} cores"
            benchmark.measure(
                title,
                partial(side, "peer", document_file, options),
                partial(side, "ours", document_file, options),
                FIGURES,
                LIMITS,
            )
    benchmark.finish()


if __name__ == "__main__":
    main()
