"""Packing that the document does not ask for is turned off where the model would mix documents; this needs no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import tiny
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from finetune_trainer import objectives
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import PackedAs
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.models.packing_choice import settle_packing
from finetune_trainer.models.packing_support import find_packing_form
from finetune_trainer.models.small_model import create_small_model
from finetune_trainer.objectives import Objective
from finetune_trainer.storage.base import Credentials

POSITIONS, MASK = PackedAs.POSITIONS, PackedAs.MASK
FORMS: dict[str, PackedAs | None] = {
    "llama": POSITIONS, "gpt2": POSITIONS, "qwen3": POSITIONS, "gemma": POSITIONS, "opt": MASK, "bloom": None, "mamba2": None,
    "bert": MASK, "modernbert": MASK, "roberta": None, "xlm-roberta": None, "camembert": None, "deberta": None,
    "deberta-v2": None,
}  # fmt: skip
MASKED = ("bert", "roberta", "camembert", "deberta")


def settle(family: str, folder: Path, **data: Any) -> tuple[TrainSpec, Objective]:
    is_masked = any(name in family for name in MASKED)
    spec = tiny.spec(
        model={"config": {"model_type": family}}, data=data, objective={"type": "MaskedLM" if is_masked else "CausalLM"}
    )
    tokenizer = tiny.tokenizer()
    tokenizer.mask_token = "w1"
    objective = objectives.from_spec(spec, tokenizer)
    return settle_packing(spec, objective, SourceResolver(spec.objective, folder, Credentials())), objective


@pytest.mark.parametrize("family", ["roberta", "deberta-v2", "bloom"])
def test_turns_the_default_off_and_says_so(family: str, tmp_path: Path) -> None:
    settled, objective = settle(family, tmp_path)
    assert settled.packing is False
    assert objective.notes == [
        f"spec.data.packing: a {family} attends across the documents of a packed row, so each sequence holds one row of data"
    ]


@pytest.mark.parametrize("data", [{"packing": True}, {"packing": False}])
def test_leaves_the_documents_own_choice(data: dict[str, Any], tmp_path: Path) -> None:
    settled, objective = settle("roberta", tmp_path, **data)
    assert settled.packing is data["packing"]
    assert not objective.notes


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_keeps_the_default_for_models_that_support_it(family: str, tmp_path: Path) -> None:
    settled, objective = settle(family, tmp_path)
    assert settled.packing is True
    assert not objective.notes


@pytest.mark.parametrize("family", FORMS)
def test_a_small_model_shows_what_its_family_supports(family: str) -> None:
    before = torch.get_rng_state()
    causal = not any(name in family for name in MASKED)
    auto_class = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    config = AutoConfig.for_model(family)
    model = create_small_model(auto_class.from_config, config, None)
    assert model is not None
    assert sum(parameter.numel() for parameter in model.parameters()) < 10_000_000
    assert find_packing_form(model, causal) is FORMS[family]
    assert config.to_dict() == AutoConfig.for_model(family).to_dict()
    assert torch.equal(torch.get_rng_state(), before)
