"""DeepSpeed's configuration, precision, gradient accumulation and weight decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support import tiny

from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.training.engine import (
    Precision,
    accumulation_steps,
    choose_precision,
    deepspeed_config,
    merge,
    parameter_groups,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "precision", "expected"),
    [
        ({}, "Float32", {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}),
        ({"deepspeed": {"zeroStage": 0}}, "Float32", {"zero_optimization": {"stage": 0}, "gradient_clipping": 0.0}),
        ({"deepspeed": {"zeroStage": 2}}, "Float32", {"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0}),
        ({"deepspeed": {"zeroStage": 0}}, "BFloat16", {"zero_optimization": {"stage": 1}, "gradient_clipping": 1.0}),
        ({}, "BFloat16", {"bf16": {"enabled": True, "check_grad_overflow": True}, "data_types": {"grad_accum_dtype": "fp32"}}),
        ({}, "Float16", {"fp16": {"enabled": True}, "bf16": None}),
        ({"training": {"maxGradientNorm": 0}}, "Float32", {"gradient_clipping": 0.0}),
        (
            {"deepspeed": {"zeroStage": 3, "offload": {"optimizer": "CPU", "parameters": "CPU"}}},
            "Float32",
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}},
        ),
        (
            {"deepspeed": {"zeroStage": 2, "config": {"zero_optimization": {"reduce_bucket_size": 7}, "comms_logger": {}}}},
            "Float32",
            {"zero_optimization": {"stage": 2, "reduce_bucket_size": 7}, "comms_logger": {}},
        ),
    ],
)
def test_deepspeed_config(changes: dict[str, Any], precision: Precision, expected: dict[str, Any]) -> None:
    spec = tiny.spec(**changes)
    config = deepspeed_config(spec.training, spec.deepspeed, 2, precision)
    assert {key: config.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("base", "more", "merged"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": {"b": 1}}, {"a": 4}, {"a": 4}),
        ({"a": 4}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merges_mappings(base: dict[str, Any], more: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(base, more) == merged


@pytest.mark.parametrize(("ranks", "expected"), [(1, 4), (2, 2), (4, 1)])
def test_accumulation_steps(ranks: int, expected: int) -> None:
    assert accumulation_steps(tiny.spec().training, ranks) == expected


@pytest.mark.parametrize("ranks", [3, 8])
def test_rejects_a_batch_size_that_ranks_cannot_divide(ranks: int) -> None:
    with pytest.raises(ConfigurationError, match=r"^spec\.training\.batchSize: 8 is not a multiple"):
        accumulation_steps(tiny.spec().training, ranks)


def test_precision_on_a_cpu() -> None:
    assert choose_precision("Auto", CPU) == "Float32"
    assert choose_precision("BFloat16", CPU) == "BFloat16"
    with pytest.raises(ConfigurationError, match=r"^spec\.training\.precision: "):
        choose_precision("Float16", CPU)


def test_biases_and_norms_have_no_weight_decay() -> None:
    model = tiny.gpt2()
    model.transformer.wte.weight.requires_grad_(False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all(names[id(p)].endswith(".weight") and "ln_" not in names[id(p)] for p in decayed["params"])
    assert all(names[id(p)].endswith(".bias") or "ln_" in names[id(p)] for p in others["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names) - 1
