"""Assembles the document's objective with what it has to know of the model that training starts from."""

from __future__ import annotations

from finetune_trainer import objectives
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.model_config import load_source_config
from finetune_trainer.models.processors import load_processor
from finetune_trainer.objectives import Objective


def build_objective(spec: TrainSpec, resolver: SourceResolver) -> Objective:
    """The document's objective, with its tokenizer or image processor; downloads no weights.

    Raises ConfigurationError for a source without a usable configuration, and the errors of `load_processor`.
    """
    objective = objectives.from_spec(spec, load_processor(spec, resolver))
    if spec.model.initialization == "Pretrained":
        source = load_source_config(spec.model, resolver.cache, resolver.credentials)
        for member in objective.members.values():
            member.model_setup.start_from(source)
    return objective
