"""Checks additional settings of DeepSpeed: those that other fields decide, and values that only transformers understands."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

AUTO = "auto"
"""What transformers' Trainer replaces in its DeepSpeed configurations, and DeepSpeed itself cannot read."""

# Settings of DeepSpeed that other fields of the document decide, and those fields.
OWNED_BY_DOCUMENT = {
    "train_batch_size": "training.batchSize",
    "train_micro_batch_size_per_gpu": "training.microBatchSize",
    "gradient_accumulation_steps": "training.batchSize and training.microBatchSize",
    "optimizer": "training.optimizer",
    "scheduler": "training.schedule",
    "gradient_clipping": "training.maxGradientNorm",
    "bf16": "training.precision",
    "bfloat16": "training.precision",
    "fp16": "training.precision",
    "amp": "training.precision",
    "torch_autocast": "training.precision",
    "elasticity": "training.batchSize",
    "zero_optimization.stage": "deepspeed.zeroStage",
    "zero_optimization.offload_optimizer": "deepspeed.offload.optimizer",
    "zero_optimization.offload_param": "deepspeed.offload.parameters",
}
# The other sections and settings that DeepSpeed reads; it ignores all that it does not know.
OTHER_SETTINGS = (
    "activation_checkpointing", "aio", "autotuning", "checkpoint", "comms_logger", "communication_data_type", "compile",
    "compression_training", "csv_monitor", "curriculum_learning", "data_efficiency", "data_types", "dataloader_drop_last",
    "disable_allgather", "dump_state", "eigenvalue", "flops_profiler", "gradient_predivide_factor", "hybrid_engine",
    "memory_breakdown", "monitor_config", "pipeline", "prescale_gradients", "progressive_layer_drop",
    "seq_parallel_communication_data_type", "sparse_attention", "sparse_gradients", "steps_per_print", "tensor_parallel",
    "tensorboard", "wall_clock_breakdown", "wandb", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)  # fmt: skip
# What transformers replaces "auto" by, from the hidden_size of the model's configuration.
VALUES_OF_AUTO = {
    "zero_optimization.reduce_bucket_size": "hidden_size x hidden_size",
    "zero_optimization.stage3_prefetch_bucket_size": "0.9 x hidden_size x hidden_size",
    "zero_optimization.stage3_param_persistence_threshold": "10 x hidden_size",
}


def setting_errors(config: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that cannot be used, in the order of the configuration."""
    if not isinstance(config.get("zero_optimization", {}), Mapping):
        return ["config.zero_optimization must be a mapping: write its settings below it"]
    errors: dict[str, None] = {}  # an ordered set: a section has one error, however many values it has
    known = [key for key in OWNED_BY_DOCUMENT if "." not in key] + list(OTHER_SETTINGS)
    for key in config:
        if key not in known and (closest := difflib.get_close_matches(key, known, n=1, cutoff=0.85)):
            errors[f"config.{key} is no setting of DeepSpeed, which would ignore it: did you mean {closest[0]}?"] = None
    for path, value in _values(config, ""):
        owned = next((key for key in OWNED_BY_DOCUMENT if f"{path}.".startswith(f"{key}.")), None)
        if owned is not None:
            errors[f"config.{owned} is decided by {OWNED_BY_DOCUMENT[owned]}: set that field and remove this one"] = None
        elif value == AUTO:
            written = VALUES_OF_AUTO.get(path)
            remedy = f"write {written}, as transformers would" if written else "write its value"
            errors[f"config.{path} is auto, which DeepSpeed cannot read: {remedy}, or remove it for DeepSpeed's default"] = None
    return list(errors)


def _values(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted path and the value of each setting; an empty section counts as a value."""
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _values(value, f"{path}.")
        else:
            yield path, value
