"""One side of checkpoint_stall.py, in a separate process; prints one JSON object."""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from paired import Sample, free_port, print_sample
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from finetune_trainer import objectives
from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.manager import CheckpointManager
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import Batch
from finetune_trainer.distributed import process_group
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.registry import open_storage
from finetune_trainer.training import engine

VOCABULARY, LENGTH = 16384, 128
WARM_UP_STEPS, WARM_UP_SAVES = 3, 3
STATE = {"step": 0, "history": list(range(1000))}


class Side(ABC):
    """A way to store checkpoints."""

    @abstractmethod
    def save(self, step: int) -> None:
        """Store a checkpoint; returns when training may continue."""

    @abstractmethod
    def finish(self) -> None:
        """Wait until the work in the background is done."""


class Peer(Side):
    """DeepSpeed's own engine.save_checkpoint."""

    def __init__(self, model: Any, folder: Path) -> None:
        self._engine, self._folder = model, folder
        self._previous: Path | None = None

    def save(self, step: int) -> None:
        self._engine.save_checkpoint(str(self._folder), tag=f"step-{step}", client_state=STATE)
        self._newest = self._folder / f"step-{step}"

    def finish(self) -> None:
        # One checkpoint is kept, as on the other side. Removing the previous one here is not part of the measured time.
        if self._previous is not None:
            shutil.rmtree(self._previous)
        self._previous = self._newest


class Ours(Side):
    """finetune_trainer.checkpoint, with a directory as storage."""

    def __init__(self, model: Any, folder: Path, spec: TrainSpec, group: process_group.ProcessGroup) -> None:
        context = CheckpointContext(
            storage=open_storage(spec.checkpoint.storage, Credentials()), identity=identity(spec), group=group, attempt="bench",
            work_dir=folder / "work", report=lambda event: None,
        )  # fmt: skip
        self._checkpoints = CheckpointManager(model, spec.checkpoint, context)
        self._checkpoints.restore()

    def save(self, step: int) -> None:
        self._checkpoints.save(step, STATE)

    def finish(self) -> None:
        self._checkpoints.finish()


def document(stage: int, folder: Path) -> TrainSpec:
    """The training document: about 50 million parameters, one sequence per step."""
    return TrainSpec.model_validate(
        {
            "model": {"initialization": "Scratch", "config": {"model_type": "llama"}, "tokenizer": {"train": {}}},
            "data": {"train": [{"source": "file:///nowhere"}], "maxLength": LENGTH},
            "training": {"maxSteps": 1000, "batchSize": 1, "microBatchSize": 1, "optimizer": {"learningRate": 1e-4}},
            "deepspeed": {"zeroStage": stage},
            "checkpoint": {"storage": f"file://{folder / 'storage'}", "everySteps": 1000, "keepLast": 1},
        }
    )


class Training:
    """Optimizer steps on one random batch, each as in the training loop."""

    def __init__(self, spec: TrainSpec, group: process_group.ProcessGroup) -> None:
        torch.manual_seed(0)
        sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10, "num_attention_heads": 8}
        config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=8, tie_word_embeddings=False, **sizes)
        model = LlamaForCausalLM(config)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.engine = engine.build_engine(model, spec.training, spec.deepspeed, None, group, "Float32")
        self._objective = objectives.from_spec(
            spec, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), eos_token="end")
        )
        tokens = torch.randint(0, VOCABULARY, (1, LENGTH))
        self._batch = Batch(inputs={"input_ids": tokens}, targets={"labels": tokens})
        self.finished = 0

    def run(self, steps: int) -> list[float]:
        """Run optimizer steps; returns the seconds of each."""
        return [self._step() for _ in range(steps)]

    def _step(self) -> float:
        started = time.perf_counter()
        [loss] = self._objective.loss.loss_sum(self.engine, self._batch)
        self.engine.backward(loss / LENGTH, scale_wrt_gas=False)
        engine.take_optimizer_step(self.engine, 1e-4, 1.0)
        self.finished += 1
        return time.perf_counter() - started


def measure(training: Training, side: Side, steps: int, saves: int) -> Sample:
    """Measure turns of steps without and with a checkpoint. The first turns, in which memory still grows, do not count.

    The time of a turn without its checkpoint is estimated as the number of steps times the median step of the turn before. With
    the mean, a hiccup of the machine in that turn would hide time that the checkpoint costs.
    """
    training.run(WARM_UP_STEPS)
    turns = []
    for _ in range(WARM_UP_SAVES + saves):
        before = training.run(steps)
        started = time.perf_counter()
        side.save(training.finished)
        call = time.perf_counter() - started
        after = training.run(steps)
        started = time.perf_counter()
        side.finish()
        turns.append(
            {
                "lost": call + sum(after) - steps * statistics.median(before), "call": call, "before": before, "after": after,
                "background_after_the_turn": time.perf_counter() - started,
            }
        )  # fmt: skip
    measured = turns[WARM_UP_SAVES:]
    return {
        "lost_seconds": statistics.median(turn["lost"] for turn in measured),
        "call_seconds": statistics.median(turn["call"] for turn in measured),
        "first_lost_seconds": turns[0]["lost"],
        "step_seconds": statistics.median(second for turn in turns for second in turn["before"]),
        "parameters": training.parameters,
        "turns": turns,
    }


@contextmanager
def single_rank_group() -> Iterator[process_group.ProcessGroup]:
    """Join a process group of one rank, and leave it at the end."""
    yield process_group.join(rank=0, size=1, local_rank=0, processes_per_node=1, master=f"127.0.0.1:{free_port()}")
    process_group.leave()


def main() -> None:
    """Measure one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("peer", "ours"))
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--saves", type=int, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name, single_rank_group() as group:
        folder = Path(name)
        spec = document(options.stage, folder)
        training = Training(spec, group)
        side = Peer(training.engine, folder) if options.side == "peer" else Ours(training.engine, folder, spec, group)
        print_sample(measure(training, side, options.steps, options.saves))


if __name__ == "__main__":
    main()
