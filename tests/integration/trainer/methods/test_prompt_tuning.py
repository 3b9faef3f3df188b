"""Prompt tuning: the loss is that of peft, the same at every ZeRO stage, and peft loads the exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.support import exports, ranks, tiny, training
from tests.support.methods import apply_method
from transformers import pipeline

from finetune_trainer.models.loading import validate_positions
from finetune_trainer.protocol.outcome import ConfigurationError

SOURCE = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}


def document(**changes: Any) -> dict[str, Any]:
    method = {"type": "PromptTuning", "promptTuning": {"virtualTokens": 5} | changes.pop("prompt", {})}
    return {"model": SOURCE, "method": method, "export": {"mergeAdapters": False}, **changes}


def add_prompt(model: Any, **prompt: Any) -> Any:
    spec = tiny.spec(**document(prompt=prompt))
    return apply_method(model, spec, training.objective_of(spec))


def test_computes_the_loss_of_peft() -> None:
    model = tiny.llama()
    adapted, rows = add_prompt(model), tiny.rows(4)
    rows["labels"][:, 0] = tiny.IGNORED  # no token of the text precedes it; batches of the objective are the same
    objective = training.objective_of(tiny.spec())
    batch = tiny.batch(rows)
    mean = objective.loss.loss_sum(adapted, batch)[0] / objective.collator.count_terms(batch)[0]
    embedded = model.get_input_embeddings()(rows["input_ids"])
    prompt = adapted.prompt_encoder["default"].embedding.weight.expand(4, -1, -1)
    expected = model(
        inputs_embeds=torch.cat([prompt, embedded], 1),
        attention_mask=torch.nn.functional.pad(rows["attention_mask"], (5, 0), value=1),
        labels=torch.nn.functional.pad(rows["labels"], (5, 0), value=tiny.IGNORED),
    ).loss
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    mean.backward()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert trained == ["prompt_encoder.default.embedding.weight"]


def test_initializes_embeddings_from_the_text() -> None:
    model = tiny.llama()
    weight = add_prompt(model, initialText="w3 w9").prompt_encoder["default"].embedding.weight
    assert torch.equal(weight, model.get_input_embeddings()(torch.tensor([3, 9, 3, 9, 3])))
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.promptTuning\.initialText: the text has no tokens"):
        add_prompt(tiny.llama(), initialText=" ")


def test_virtual_tokens_occupy_positions() -> None:
    validate_positions(tiny.llama(), {"spec.data.maxLength": 123}, 5)
    with pytest.raises(ConfigurationError, match=r"^spec\.data\.maxLength: 124, with 5 virtual tokens, is more than the 128"):
        validate_positions(tiny.llama(), {"spec.data.maxLength": 124}, 5)
    with pytest.raises(ConfigurationError, match=r"^spec\.data\.maxLength: 8, with 500 virtual tokens"):
        validate_positions(tiny.llama(), {"spec.data.maxLength": 8}, 500)


def test_disables_packing_by_default() -> None:
    assert tiny.spec().packing
    assert not tiny.spec(**document()).packing


def test_trains_the_same_at_every_stage_and_exports_for_peft(tmp_path: Path) -> None:
    partitioned = {"config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
    cases: list[tuple[Path, str, dict[str, Any]]] = [
        (tmp_path / str(stage), "llama", document(deepspeed={"zeroStage": stage} | (partitioned if stage == 3 else {})))
        for stage in (0, 2, 3)
    ]
    results = ranks.run(exports.train_and_export, 2, cases)[0]
    rows = tiny.rows(3)
    for (folder, _, _), result in zip(cases, results, strict=True):
        logits = torch.from_numpy(result["logits"])
        torch.testing.assert_close(logits, torch.from_numpy(results[0]["logits"]), rtol=1e-3, atol=1e-4)
        assert not (folder / "model.safetensors").exists()
        assert json.loads((folder / "adapter_config.json").read_text())["num_virtual_tokens"] == 5
        loaded = peft.PeftModel.from_pretrained(tiny.llama(), folder).eval()
        with torch.no_grad():
            assert torch.equal(loaded.base_model(**rows).logits, tiny.llama().eval()(**rows).logits)
            torch.testing.assert_close(loaded(**rows).logits[:, 5:], logits, rtol=1e-4, atol=1e-5)
    generate = pipeline("text-generation", model=loaded, tokenizer=tiny.tokenizer())
    text = generate("w1 w2", max_new_tokens=3, do_sample=False)[0]["generated_text"]
    with torch.no_grad():
        first = int(loaded(input_ids=torch.tensor([[1, 2]])).logits[0, -1].argmax())
    assert text.removeprefix("w1 w2").strip().startswith(f"w{first} ")
