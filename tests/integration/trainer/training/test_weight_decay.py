"""The weights that decay are those of transformers' Trainer, but for vectors and the dynamics of state-space models."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel, Trainer

from finetune_trainer.training.weight_decay import decays

EQUAL = [
    "llama", "gpt2", "opt", "bloom", "mpt", "gemma2", "qwen3", "t5", "bart", "bert", "roberta", "deberta-v2", "modernbert",
    "vit", "swin", "whisper",
]  # fmt: skip
UNDECAYED_HERE = {
    "mamba": {"norm_f.weight", "layers.0.mixer.D", "layers.0.mixer.A_log"},
    "beit": {"layers.0.lambda_1", "layers.0.lambda_2"},
}


def decayed_names(family: str) -> tuple[set[str], set[str]]:
    """The names of the weights that decay, here and in transformers' Trainer."""
    config = AutoConfig.for_model(family)
    config.update({config.attribute_map.get("num_hidden_layers", "num_hidden_layers"): 1} if family in UNDECAYED_HERE else {})
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    here = {name for name, parameter in model.named_parameters() if decays(name, parameter)}
    theirs = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]  # it uses no attribute
    return here, theirs & dict(model.named_parameters()).keys()  # without the second names of tied weights


@pytest.mark.parametrize("family", EQUAL)
def test_the_weights_of_transformers_decay(family: str) -> None:
    here, theirs = decayed_names(family)
    assert here == theirs


@pytest.mark.parametrize("family", UNDECAYED_HERE)
def test_vectors_and_state_space_dynamics_do_not_decay(family: str) -> None:
    here, theirs = decayed_names(family)
    assert here <= theirs
    assert theirs - here == UNDECAYED_HERE[family]
