"""The DeepSpeed engine: its configuration, a pure function of the document, its construction and its optimizer steps."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

import torch

from finetune_trainer.config import DeepSpeedConfig, OptimizerConfig, TrainingConfig, UnfreezeConfig
from finetune_trainer.distributed.process_group import ProcessGroup, import_deepspeed
from finetune_trainer.methods.components.layer_depth import LayerDepths, measure_layer_depths
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.training.weight_decay import decays

log = logging.getLogger(__name__)
Precision = Literal["Float32", "BFloat16", "Float16"]
DTYPES: dict[Precision, torch.dtype] = {"Float32": torch.float32, "BFloat16": torch.bfloat16, "Float16": torch.float16}


def choose_precision(requested: Literal["Auto"] | Precision, device: torch.device) -> Precision:
    """The precision to train in on the device; raises ConfigurationError for one that the device does not support."""
    on_gpu = device.type == "cuda"
    supports_bfloat16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if requested == "Auto":
        return "BFloat16" if supports_bfloat16 else "Float32"
    if requested == "Float16" and not on_gpu:
        raise ConfigurationError("spec.training.precision: Float16 needs a GPU; use Auto, Float32 or BFloat16")
    if requested == "BFloat16" and on_gpu and not supports_bfloat16:
        raise ConfigurationError("spec.training.precision: this GPU has no BFloat16; use Auto, Float16 or Float32")
    return requested


def accumulation_steps(training: TrainingConfig, world_size: int) -> int:
    """The number of micro-batches of one rank in one optimizer step; raises ConfigurationError unless it is whole."""
    steps, remainder = divmod(training.batch_size, training.micro_batch_size * world_size)
    if remainder or not steps:
        raise ConfigurationError(
            f"spec.training.batchSize: {training.batch_size} is not a multiple of microBatchSize x ranks "
            f"({training.micro_batch_size} x {world_size}); change batchSize or microBatchSize"
        )
    return steps


def deepspeed_config(
    training: TrainingConfig, deepspeed: DeepSpeedConfig, world_size: int, precision: Precision
) -> dict[str, Any]:
    """DeepSpeed's configuration for the document, with `spec.deepspeed.config` merged into it last."""
    offload, stage = deepspeed.offload, deepspeed.zero_stage
    if precision != "Float32" and stage == 0:
        # Stage 0 keeps no float32 copy of half-precision weights, so that rounding would lose small updates. Stage 1 keeps
        # one, and communicates no more than stage 0 does.
        stage = 1
    zero: dict[str, Any] = {"stage": stage}
    if offload.optimizer == "CPU":
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload.parameters == "CPU":
        zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_batch_size": training.batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(training, world_size),
        # At stage 0 `take_optimizer_step` clips.
        "gradient_clipping": training.max_gradient_norm if stage > 0 else 0.0,
        "zero_optimization": zero,
        # The optimizer is torch's: DeepSpeed compiles its own at first use, and the image has no compiler.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    if precision == "BFloat16":
        # Without the check DeepSpeed would apply NaN gradients to the weights.
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        # Otherwise micro-batches would be summed with the eight bits of bfloat16.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    if precision == "Float16":
        config["fp16"] = {"enabled": True}
    return merge(config, deepspeed.config)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `changes` into a copy of `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        current = merged.get(key)
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(current, value)
        else:
            merged[key] = value
    return merged


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, depths: LayerDepths | None = None, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: those that weight decay applies to, and the others; see `weight_decay.decays`.

    With `depths` there are two such groups for each depth, the deepest last, each with the scale of its learning rate.

    Call this before the engine is built: ZeRO-3 flattens parameters to one dimension.
    """
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = depths.by_parameter[parameter] if depths else 0
            groups[depth, not decays(name, parameter)].append(parameter)
    head = depths.head if depths else 0
    result = []
    for depth, is_undecayed in sorted(groups):
        group = {
            "params": groups[depth, is_undecayed],
            "weight_decay": 0.0 if is_undecayed else weight_decay,
            "depth": depth,
            "scale": layer_decay ** (head - depth),
        }
        result.append(group)
    return result


def build_engine(
    model: torch.nn.Module, training: TrainingConfig, deepspeed: DeepSpeedConfig, unfreeze: UnfreezeConfig | None,
    group: ProcessGroup, precision: Precision,
) -> Any:  # fmt: skip
    """The DeepSpeed engine that trains `model`; raises ConfigurationError for settings that DeepSpeed rejects."""
    if training.gradient_checkpointing:
        _enable_gradient_checkpointing(model, reentrant=deepspeed.zero_stage == 3)
    optimizer = training.optimizer
    depths = None
    if unfreeze:
        depths = measure_layer_depths(model, "spec.method.unfreeze")
    elif optimizer.layer_decay < 1:
        depths = measure_layer_depths(model, "spec.training.optimizer.layerDecay")
    groups = parameter_groups(model, optimizer.weight_decay, depths, optimizer.layer_decay)
    config = deepspeed_config(training, deepspeed, group.size, precision)
    stage = config["zero_optimization"]["stage"]
    if stage != deepspeed.zero_stage and group.is_first:
        log.info(
            "spec.deepspeed.zeroStage: %d is used instead of %d, which has no float32 weights", stage, deepspeed.zero_stage
        )
    initialize = import_deepspeed().initialize
    try:
        engine, *_ = initialize(model=model, optimizer=_build_optimizer(groups, optimizer), config=config)
    except (ValueError, AssertionError, NotImplementedError) as error:
        if not deepspeed.config:
            raise
        raise ConfigurationError(f"spec.deepspeed.config: DeepSpeed rejects it ({error}); change or remove it") from error
    return engine


def _build_optimizer(groups: list[dict[str, Any]], optimizer: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups,
        lr=optimizer.learning_rate,
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.epsilon,
        # One kernel for a whole flat partition; it also exists for the host memory that an offloaded optimizer uses.
        fused=True,
    )


def _enable_gradient_checkpointing(model: Any, reentrant: bool) -> None:
    # Non-reentrant recomputation compares shapes, which ZeRO-3 changes as it gathers and releases parameters.
    if not hasattr(model, "gradient_checkpointing_enable") or not getattr(model, "supports_gradient_checkpointing", True):
        raise ConfigurationError("spec.training.gradientCheckpointing: this model does not support it; remove it")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        # If the weights below a reentrant segment are frozen, it is recomputed only if its input requires a gradient.
        model.enable_input_require_grads()


def take_optimizer_step(engine: Any, learning_rate: float, max_norm: float) -> float:
    """Take one optimizer step, each parameter group at the learning rate times its scale.

    Returns the gradients' L2 norm over all parameters, before clipping. It is infinite or NaN if a gradient was; the gradients
    are then discarded, and the weights and the state of the optimizer are unchanged.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
    if _uses_torch_optimizer(engine):
        return _take_plain_step(engine, max_norm)
    try:
        engine.step()
    except Exception as error:
        # DeepSpeed raises a bare Exception if gradients overflow at every loss scale.
        if skips_overflow(engine) and "loss scale" in str(error):
            return math.nan
        raise
    norm = float(engine.get_global_grad_norm())
    # DeepSpeed returns a negative norm for a NaN.
    return norm if norm >= 0 else math.inf


def _take_plain_step(engine: Any, max_norm: float) -> float:
    # Without ZeRO, DeepSpeed would clip without reporting the norm and apply NaN gradients.
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not math.isfinite(norm):
        engine.zero_grad()
        return norm
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(engine.module.parameters(), max_norm, torch.tensor(norm))
    engine.step()
    return norm


def discard_gradients(engine: Any) -> None:
    """End the step without changing the weights or the state of the optimizer. Collective."""
    optimizer = engine.optimizer
    if _uses_torch_optimizer(engine):
        engine.zero_grad()
        return
    if hasattr(optimizer, "clear_hp_grads"):  # bfloat16 weights with float32 gradients, at stage 1
        optimizer.clear_hp_grads()
        optimizer.clear_lp_grads()
        return
    # ZeRO clears the buffers of its partitions only in a step, and leaves everything else as it is if the norm is invalid.
    is_stage_3 = not hasattr(optimizer, "scaled_global_norm")
    hook = "_get_norm_groups" if is_stage_3 else "scaled_global_norm"
    invalid = torch.tensor(-1.0)
    setattr(optimizer, hook, lambda: [invalid] if is_stage_3 else invalid)
    try:
        engine.step()
    finally:
        delattr(optimizer, hook)


def skips_overflow(engine: Any) -> bool:
    """Whether the engine answers an overflow with a lower loss scale and skips the step; only Float16 does."""
    return bool(engine.fp16_enabled())


def _uses_torch_optimizer(engine: Any) -> bool:
    return isinstance(engine.optimizer, torch.optim.Optimizer)
