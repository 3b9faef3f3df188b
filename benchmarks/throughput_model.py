"""Creates the model of training_throughput.py: a tokenizer trained on the corpus, and random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from paired import print_sample

from finetune_trainer import config, objectives
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models import loading
from finetune_trainer.models.processors import load_processor
from finetune_trainer.storage.base import Credentials

VOCABULARY = 8192


def main() -> None:
    """Create the model: CORPUS.jsonl DIRECTORY CONFIG"""
    corpus, folder, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    model_config = {"initialization": "Scratch", "config": settings, "tokenizer": {"train": {"vocabSize": VOCABULARY}}}
    document = {
        "model": model_config,
        "data": {"train": [{"source": f"file://{corpus}"}]},
        "checkpoint": {"storage": f"file://{folder}"},
    }
    spec = config.TrainSpec.model_validate(document)
    tokenizer = load_processor(spec, SourceResolver(spec.objective, folder, Credentials()))
    objective = objectives.from_spec(spec, tokenizer)
    model = loading.load_model(spec.model, objective, dtype=torch.float32, cache=folder, credentials=Credentials(), seed=0)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    print_sample({"parameters": sum(parameter.numel() for parameter in model.parameters())})


if __name__ == "__main__":
    main()
