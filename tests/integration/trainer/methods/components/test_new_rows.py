"""The embeddings of added tokens are trained, and no others, where a method freezes embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.support import tiny, training
from tests.support.methods import apply_method
from transformers import AutoModelForCausalLM

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export.adapter import validate_adapter_export
from finetune_trainer.export.model import save_model
from finetune_trainer.export.model_card import _loading_code
from finetune_trainer.methods.components.peft_layers import unwrap_peft_model
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.training.engine import parameter_groups

KNOWN = tiny.VOCABULARY - 3
ALONE = ProcessGroup(0, 1, 0, 1, torch.device("cpu"))
SOURCE = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}
METHODS: list[dict[str, Any]] = [
    {"type": "LoRA"}, {"type": "IA3"}, {"type": "Bottleneck"}, {"freeze": {"embeddings": True, "modules": ["lm_head"]}},
]  # fmt: skip


def train(model: Any, method: dict[str, Any], steps: int = 3) -> tuple[Any, Any]:
    """The trained model and its document."""
    spec = tiny.spec(model=SOURCE, method=method)
    adapted = apply_method(model, spec, training.objective_of(spec))
    optimizer = torch.optim.AdamW(parameter_groups(adapted, weight_decay=0.5), lr=0.01)
    for step in range(steps):
        adapted(**tiny.rows(4, seed=step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapted, spec


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**tiny.rows(3) | {"labels": None}).logits
    return logits


@pytest.mark.parametrize("method", METHODS, ids=["LoRA", "IA3", "Bottleneck", "freeze"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_trains_the_new_rows_alone(method: dict[str, Any], tied: bool) -> None:
    model = tiny.llama_with_added_tokens(tied)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained = unwrap_peft_model(train(model, method)[0])
    inputs, head = trained.get_input_embeddings().weight, trained.get_output_embeddings().weight
    assert (inputs is head) == tied
    for weight, start in ((inputs, before["model.embed_tokens.weight"]), (head, before["lm_head.weight"])):
        assert torch.equal(weight[:KNOWN], start[:KNOWN])
        assert (weight[KNOWN:] - start[KNOWN:]).abs().amax(1).min() > 1e-3


def test_the_starting_model_has_the_rows_that_it_started_with() -> None:
    model = tiny.llama_with_added_tokens()
    before = logits_of(model)
    adapted, _ = train(model, {"type": "LoRA"})
    after = logits_of(adapted)
    with adapted.disable_adapter():
        assert torch.equal(logits_of(adapted), before)
    assert torch.equal(logits_of(adapted), after)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_separate_adapter_adds_its_rows_to_a_base_without_them(tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny.llama_with_added_tokens(tied, known=tiny.VOCABULARY)  # the same random numbers
    base = tiny.llama_with_added_tokens(tied)
    base.resize_token_embeddings(KNOWN)
    base.save_pretrained(tmp_path / "base")
    adapted, spec = train(tiny.llama_with_added_tokens(tied), {"type": "LoRA"})
    export = spec.export.model_copy(update={"merge_adapters": False})
    source = spec.model.model_copy(update={"source": f"file://{tmp_path}/base"})
    save_model(adapted, training.objective_of(spec), export, source, ALONE, tmp_path / "adapter")
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits_of(loaded), logits_of(adapted))
    assert peft.LoraConfig.from_pretrained(str(tmp_path / "adapter")).trainable_token_indices is not None
    code = _loading_code("peft", spec, training.objective_of(spec), tmp_path / "adapter")
    assert f"base.resize_token_embeddings({tiny.VOCABULARY})" in code.splitlines()


def test_only_lora_adapters_hold_new_rows() -> None:
    adapted, _ = train(tiny.llama_with_added_tokens(), {"type": "IA3"}, steps=0)
    with pytest.raises(ConfigurationError, match=r"^spec\.export\.mergeAdapters: .* only LoRA adapters can hold new ones: set"):
        validate_adapter_export(adapted)
    validate_adapter_export(train(tiny.llama_with_added_tokens(), {"type": "LoRA"}, steps=0)[0])
    validate_adapter_export(train(tiny.llama(), {"type": "IA3"}, steps=0)[0])


def test_an_adapter_on_a_tied_head_is_exported_as_a_head_of_its_own(tmp_path: Path) -> None:
    adapted, spec = train(tiny.gpt2(), {"type": "LoRA", "lora": {"targetModules": ["c_attn", "lm_head"]}})
    save_model(adapted, training.objective_of(spec), spec.export, spec.model, ALONE, tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert merged.config.tie_word_embeddings is False
    torch.testing.assert_close(logits_of(merged), logits_of(adapted), rtol=1e-4, atol=1e-5)
