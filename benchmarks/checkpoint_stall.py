"""Training time lost to one checkpoint: ours against DeepSpeed's own engine.save_checkpoint.

A Llama of about 50 million parameters trains on the CPU in float32 with AdamW. Each side is a process of its own that takes
turns: N optimizer steps without a checkpoint, then N with one before the first of them. The difference is what the checkpoint
has cost: the call itself, the steps that waited for it and the steps that the work in the background slowed down. N is so
large that the background is done before the N steps are; a step without a checkpoint counts as the median of those before it.
Both write to a folder of the same disk. DeepSpeed returns when its files are written, without fsync or hashes; ours are on the
disk, hashed and committed by a manifest. Both sides keep freed memory, as our ranks do on the CPU: otherwise steps differ by
more than a checkpoint of ours costs.

The training computes with --threads threads. By default that leaves a core for the background, as a node has whose training
computes on GPUs; with --threads set to all cores each second of work in the background is taken from the training.

    .venv/bin/python benchmarks/checkpoint_stall.py [--stages 1 2] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
from functools import partial

from paired import Benchmark, Figure, Sample, in_process

from finetune_trainer.agent.environment import KEEP_FREED_MEMORY

FIGURES = (
    Figure("lost_seconds", "training time lost to a checkpoint", "s", at_most=0.1),
    Figure("call_seconds", "of it the call itself", "s"),
    Figure("first_lost_seconds", "lost to the first checkpoint of a process", "s"),
)


def side(name: str, stage: int, options: argparse.Namespace) -> Sample:
    """One process that measures one side at one ZeRO stage."""
    return in_process(
        "checkpoint_side.py", name, "--stage", stage, "--steps", options.steps, "--saves", options.saves,
        environment={"OMP_NUM_THREADS": str(options.threads), "DS_ACCELERATOR": "cpu"} | KEEP_FREED_MEMORY,
    )  # fmt: skip


def main() -> None:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2], help="ZeRO stages (default: 1 2)")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of a turn (default: %(default)s)")
    parser.add_argument("--saves", type=int, default=8, help="checkpoints of a process that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=max(1, cores - 1), help="of the training (default: %(default)s)")
    benchmark = Benchmark("Training time lost to a checkpoint", parser, "torch", "deepspeed", "transformers")
    options = benchmark.config
    for stage in options.stages:
        title = f"ZeRO-{stage}, {options.threads} of {cores} cores, against engine.save_checkpoint"
        benchmark.measure(title, partial(side, "peer", stage, options), partial(side, "ours", stage, options), FIGURES)
    benchmark.finish()


if __name__ == "__main__":
    main()
