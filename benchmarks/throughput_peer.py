"""The peer of training_throughput.py: transformers.Trainer with the same DeepSpeed configuration; prints one JSON object."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from paired import Sample, cpu_seconds, free_port, print_sample
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from finetune_trainer import objectives
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.dataset import TOKENS
from finetune_trainer.data.preprocessing.prepare import prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.engine import deepspeed_config

IGNORED = -100


class CountingCollator:
    """A collator that records the number of tokens and the padding of each micro-batch."""

    def __init__(self, collator: Any) -> None:
        self._collator = collator
        self.tokens: list[int] = []
        self.padding: list[float] = []

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self._collator(features)
        self.tokens.append(int((batch["labels"][:, 1:] != IGNORED).sum()))
        self.padding.append(1 - float(batch["attention_mask"].float().mean()))
        return batch


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Records the time at the end of each optimizer step, and the processor time of this process until then."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.cpu: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.monotonic())
        self.cpu.append(cpu_seconds(os.getpid()))


def arguments(spec: TrainSpec, folder: str, sampling: str) -> TrainingArguments:
    """Convert the document to TrainingArguments."""
    training = spec.training
    return TrainingArguments(
        output_dir=folder,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
        learning_rate=training.optimizer.learning_rate,
        weight_decay=training.optimizer.weight_decay,
        max_grad_norm=training.max_gradient_norm,
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        seed=training.seed,
        train_sampling_strategy=sampling,
        deepspeed=deepspeed_config(training, spec.deepspeed, 1, "Float32"),
        use_cpu=True,
        dataloader_pin_memory=False,
        logging_steps=training.log_every_steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def rows(spec: TrainSpec, tokenizer: Any, folder: Path) -> datasets.Dataset:
    """Build the dataset of our side without packing, in the form that Trainer expects."""
    reading = SourceResolver(spec.objective, folder / "cache", Credentials())
    prepared = prepare(spec, objectives.from_spec(spec, tokenizer).encoder, reading).train
    return datasets.Dataset.from_dict({TOKENS: [row[TOKENS] for row in prepared]})


def train(spec: TrainSpec, folder: Path, sampling: str) -> tuple[CountingCollator, Clock, float]:
    """Run Trainer once; returns the collator, the clock and the last loss."""
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(free_port())
    import deepspeed

    # As on our side: see finetune_trainer.distributed.process_group.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    source = folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    collator = CountingCollator(DataCollatorForLanguageModeling(tokenizer, mlm=False))
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as work:
        settings = arguments(spec, work, sampling)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        trainer = Trainer(
            model=model, args=settings, train_dataset=rows(spec, tokenizer, folder), data_collator=collator, callbacks=[clock]
        )
        output = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return collator, clock, losses[-1] if losses else output.training_loss


def summarize(collator: CountingCollator, clock: Clock, accumulation: int, warm_up: int, loss: float) -> Sample:
    """Tokens per second after the warm-up. The loader may have collated more batches than were trained, always in order."""
    counted = slice(warm_up * accumulation, len(clock.ends) * accumulation)
    tokens, seconds = sum(collator.tokens[counted]), clock.ends[-1] - clock.ends[warm_up - 1]
    padding = collator.padding[counted]
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_cpu_second": tokens / (clock.cpu[-1] - clock.cpu[warm_up - 1]),
        "padding": sum(padding) / len(padding),
        "tokens": tokens,
        "seconds": seconds,
        "step_ends": [moment - clock.ends[0] for moment in clock.ends],
        "last_loss": loss,
    }


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path, help="a TrainSpec")
    parser.add_argument("folder", type=Path, help="directory of the model and of prepared data, shared by all runs")
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--sampling", required=True, help="train_sampling_strategy")
    options = parser.parse_args()
    spec = TrainSpec.model_validate_json(options.document.read_text())
    collator, clock, loss = train(spec, options.folder, options.sampling)
    accumulation = spec.training.batch_size // spec.training.micro_batch_size
    print_sample(summarize(collator, clock, accumulation, options.warm_up, loss))


if __name__ == "__main__":
    main()
