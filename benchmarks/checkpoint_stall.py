"""Training time that one checkpoint costs: ours compared with DeepSpeed's engine.save_checkpoint.

A Llama of about 50 million parameters trains on the CPU in float32 with AdamW. Each side is a separate process that alternates
between N optimizer steps without a checkpoint and N steps with a checkpoint before the first. The difference is the cost of the
checkpoint: the call itself, the steps that wait for it, and the steps that are slowed down by the work in the background. N is
large enough that the background work ends within the N steps. The time of a step without a checkpoint is the median of the
preceding turn. Both sides write to a directory on the same disk. DeepSpeed returns when its files are written, without fsync or
hashes; our checkpoints are synced to disk, hashed and committed by a manifest. Both sides keep freed memory, as our ranks do on
the CPU: otherwise the time of steps varies by more than one of our checkpoints costs.

The training uses --threads threads. By default this leaves a core for the background work, as on a node that trains on GPUs.
With --threads set to all cores, the background work competes with the training.

    .venv/bin/python benchmarks/checkpoint_stall.py [--stages 1 2] [--pairs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
from functools import partial

from paired import Benchmark, Figure, Sample, run_script

from finetune_trainer.agent.environment import KEEP_FREED_MEMORY

FIGURES = (
    Figure("lost_seconds", "training time lost to a checkpoint", "s", at_most=0.1),
    Figure("call_seconds", "thereof the call itself", "s"),
    Figure("first_lost_seconds", "time lost to the first checkpoint of a process", "s"),
)


def side(name: str, stage: int, options: argparse.Namespace) -> Sample:
    """Measure one side at one ZeRO stage in a separate process."""
    return run_script(
        "checkpoint_side.py", name, "--stage", stage, "--steps", options.steps, "--saves", options.saves,
        environment={"OMP_NUM_THREADS": str(options.threads), "DS_ACCELERATOR": "cpu"} | KEEP_FREED_MEMORY,
    )  # fmt: skip


def main() -> None:
    """Measure both sides and check the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2], help="ZeRO stages (default: 1 2)")
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps per turn (default: %(default)s)")
    parser.add_argument("--saves", type=int, default=8, help="measured checkpoints per process (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=max(1, cores - 1), help="threads of the training (default: %(default)s)")
    benchmark = Benchmark("Training time lost to a checkpoint", parser, "torch", "deepspeed", "transformers")
    options = benchmark.config
    for stage in options.stages:
        title = f"ZeRO-{stage}, {options.threads} of {cores} cores, against engine.save_checkpoint"
        benchmark.measure(title, partial(side, "peer", stage, options), partial(side, "ours", stage, options), FIGURES)
    benchmark.finish()


if __name__ == "__main__":
    main()
