"""Settings of DeepSpeed that cannot be used are reported together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_trainer.config import DeepSpeedConfig, explain
from finetune_trainer.config.deepspeed_settings import setting_errors

# The configuration of transformers' documentation for ZeRO stage 3, shortened.
TRANSFORMERS: dict[str, Any] = {
    "fp16": {"enabled": "auto", "loss_scale": 0},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
    },
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "wall_clock_breakdown": "auto",
}


def test_reports_every_setting_in_one_message() -> None:
    with pytest.raises(ValidationError) as caught:
        DeepSpeedConfig.model_validate({"zeroStage": 3, "config": TRANSFORMERS})
    [message] = explain(caught.value, "spec.deepspeed")
    decided, auto = "set that field and remove this one", "is auto, which DeepSpeed cannot read"
    default = "or remove it for DeepSpeed's default"
    assert message == "spec.deepspeed: " + "; ".join([
        f"config.fp16 is decided by training.precision: {decided}",
        f"config.bf16 is decided by training.precision: {decided}",
        f"config.optimizer is decided by training.optimizer: {decided}",
        f"config.zero_optimization.stage is decided by deepspeed.zeroStage: {decided}",
        f"config.zero_optimization.reduce_bucket_size {auto}: write hidden_size x hidden_size, as transformers would, "
        + default,
        f"config.zero_optimization.stage3_param_persistence_threshold {auto}: write 10 x hidden_size, as transformers would, "
        + default,
        f"config.gradient_accumulation_steps is decided by training.batchSize and training.microBatchSize: {decided}",
        f"config.train_batch_size is decided by training.batchSize: {decided}",
        f"config.wall_clock_breakdown {auto}: write its value, {default}",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("config", "errors"),
    [
        ({}, 0),
        ({"zero_optimization": {"overlap_comm": True}, "comms_logger": {}}, 0),
        ({"zero_optimization": 3}, 1),
        ({"optimizer": {}}, 1),
        ({"zero_optimisation": {"overlap_comm": True}}, 1),
        ({"bfloat16": {"enabled": True}}, 1),
        ({"a_setting_of_a_later_version": 1}, 0),
        ({"zero_optimization": {"offload_param": {"device": "auto", "pin_memory": True}}}, 1),
    ],
)
def test_counts_each_setting_once(config: dict[str, Any], errors: int) -> None:
    assert len(setting_errors(config)) == errors


def test_corrects_the_spelling_of_a_setting_that_deepspeed_would_ignore() -> None:
    assert setting_errors({"wall_clock_breakdwon": True}) == [
        "config.wall_clock_breakdwon is no setting of DeepSpeed, which would ignore it: did you mean wall_clock_breakdown?"
    ]
