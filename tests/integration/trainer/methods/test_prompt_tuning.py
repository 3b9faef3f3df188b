"""Virtual tokens: a loss as without them but for what they say, the same at every ZeRO stage, and folders that peft loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.support import ranks, tiny, training
from tests.support.methods import apply_method
from transformers import pipeline

from finetune_trainer.models.loading import validate_positions
from finetune_trainer.protocol.outcome import ConfigurationError

SOURCE = {"initialization": "Pretrained", "source": "hf://somewhere/model", "tokenizer": None}


def document(**changes: Any) -> dict[str, Any]:
    method = {"type": "PromptTuning", "promptTuning": {"virtualTokens": 5} | changes.pop("prompt", {})}
    return {"model": SOURCE, "method": method, "export": {"mergeAdapters": False}, **changes}


def prompted(model: Any, **prompt: Any) -> Any:
    spec = tiny.spec(**document(prompt=prompt))
    return apply_method(model, spec, training.objective_of(spec))


def test_the_loss_is_that_of_peft() -> None:
    model = tiny.llama()
    learner, rows = prompted(model), tiny.rows(4)
    rows["labels"][:, 0] = tiny.IGNORED  # as the objective's own batches are: nothing of the text stands before it
    objective = training.objective_of(tiny.spec())
    mean = objective.loss_sum(learner, rows)[0] / objective.count(rows)[0]
    embedded = model.get_input_embeddings()(rows["input_ids"])
    prompt = learner.prompt_encoder["default"].embedding.weight.expand(4, -1, -1)
    theirs = model(
        inputs_embeds=torch.cat([prompt, embedded], 1),
        attention_mask=torch.nn.functional.pad(rows["attention_mask"], (5, 0), value=1),
        labels=torch.nn.functional.pad(rows["labels"], (5, 0), value=tiny.IGNORED),
    ).loss
    assert mean.item() == pytest.approx(theirs.item(), rel=1e-5)
    mean.backward()
    moving = [name for name, parameter in learner.named_parameters() if parameter.grad is not None]
    assert moving == ["prompt_encoder.default.embedding.weight"]


def test_they_begin_as_the_text() -> None:
    model = tiny.llama()
    weight = prompted(model, initialText="w3 w9").prompt_encoder["default"].embedding.weight
    assert torch.equal(weight, model.get_input_embeddings()(torch.tensor([3, 9, 3, 9, 3])))
    with pytest.raises(ConfigurationError, match=r"^spec\.method\.promptTuning\.initialText: the text has no tokens"):
        prompted(tiny.llama(), initialText=" ")


def test_they_take_positions() -> None:
    validate_positions(tiny.llama(), {"spec.data.maxLength": 123}, 5)
    with pytest.raises(ConfigurationError, match=r"^spec\.data\.maxLength: 124, with 5 virtual tokens, is more than the 128"):
        validate_positions(tiny.llama(), {"spec.data.maxLength": 124}, 5)
    with pytest.raises(ConfigurationError, match=r"^spec\.data\.maxLength: 8, with 500 virtual tokens"):
        validate_positions(tiny.llama(), {"spec.data.maxLength": 8}, 500)


def test_packing_is_off_unless_asked_for() -> None:
    assert tiny.spec().packing
    assert not tiny.spec(**document()).packing


def test_every_stage_learns_the_same_and_leaves_what_peft_loads(tmp_path: Path) -> None:
    partitioned = {"config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}
    cases: list[tuple[Path, str, dict[str, Any]]] = [
        (tmp_path / str(stage), "llama", document(deepspeed={"zeroStage": stage} | (partitioned if stage == 3 else {})))
        for stage in (0, 2, 3)
    ]
    results = ranks.run(training.train_and_export, 2, cases)[0]
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
    told = generate("w1 w2", max_new_tokens=3, do_sample=False)[0]["generated_text"]
    with torch.no_grad():
        first = int(loaded(input_ids=torch.tensor([[1, 2]])).logits[0, -1].argmax())
    assert told.removeprefix("w1 w2").strip().startswith(f"w{first} ")
