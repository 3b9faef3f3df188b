"""The DeepSpeed engine under a run: its configuration as a pure function of the document, and how it is built."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

import torch

from finetune_trainer.config import OptimizerConfig, TrainSpec
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.methods.layer_depth import Depths, measure
from finetune_trainer.protocol.outcome import ConfigurationError

Precision = Literal["Float32", "BFloat16", "Float16"]
DTYPES: dict[Precision, torch.dtype] = {"Float32": torch.float32, "BFloat16": torch.bfloat16, "Float16": torch.float16}


def choose_precision(spec: TrainSpec, world: ProcessGroup) -> Precision:
    """The precision for this device; raises ConfigurationError for one that the device cannot compute in."""
    on_gpu = world.device.type == "cuda"
    wanted = spec.training.precision
    if wanted == "Auto":
        return "BFloat16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "Float32"
    if wanted == "Float16" and not on_gpu:
        raise ConfigurationError("spec.training.precision: Float16 needs a GPU; use Auto, Float32 or BFloat16")
    if wanted == "BFloat16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigurationError("spec.training.precision: this GPU has no BFloat16; use Auto, Float16 or Float32")
    return wanted


def accumulation_steps(spec: TrainSpec, world_size: int) -> int:
    """Micro-batches that one rank computes in one optimizer step; raises ConfigurationError if they do not come out even."""
    training = spec.training
    steps, rest = divmod(training.batch_size, training.micro_batch_size * world_size)
    if rest or not steps:
        raise ConfigurationError(
            f"spec.training.batchSize: {training.batch_size} is not a multiple of microBatchSize x ranks "
            f"({training.micro_batch_size} x {world_size}); change batchSize or microBatchSize"
        )
    return steps


def deepspeed_config(spec: TrainSpec, world_size: int, precision: Precision) -> dict[str, Any]:
    """DeepSpeed's configuration for the document, with `spec.deepspeed.config` merged into it last."""
    offload, stage = spec.deepspeed.offload, spec.deepspeed.zero_stage
    if precision != "Float32" and stage == 0:
        # Stage 0 has no float32 weights beside the half ones, and updates get lost in their rounding. Stage 1 has, and
        # exchanges no more than stage 0 does.
        stage = 1
    zero: dict[str, Any] = {"stage": stage}
    if offload.optimizer == "CPU":
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload.parameters == "CPU":
        zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_batch_size": spec.training.batch_size,
        "train_micro_batch_size_per_gpu": spec.training.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(spec, world_size),
        # At stage 0 `step` clips by itself.
        "gradient_clipping": spec.training.max_gradient_norm if stage > 0 else 0.0,
        "zero_optimization": zero,
        # The optimizer is torch's own: DeepSpeed's are compiled at first use, which a lean image cannot do.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    if precision == "BFloat16":
        # Without the check DeepSpeed would hand a NaN in the gradients to the weights.
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        # Micro-batches would otherwise be summed with bfloat16's eight bits.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    if precision == "Float16":
        config["fp16"] = {"enabled": True}
    return merge(config, spec.deepspeed.config)


def merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `more` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in more.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def parameter_groups(
    model: torch.nn.Module, weight_decay: float, depths: Depths | None = None, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices are decayed; biases, norms, scales and other vectors are not.

    With `depths` there are two such groups for each depth, the deepest last, each with the scale of its learning rate.

    ZeRO-3 flattens parameters to one dimension each, so this must see the model before the engine does.
    """
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[depths.of[parameter] if depths else 0, not is_matrix(name, parameter)].append(parameter)
    head = depths.head if depths else 0
    return [
        {
            "params": parameters, "weight_decay": 0.0 if is_vector else weight_decay, "depth": depth,
            "scale": layer_decay ** (head - depth),
        }
        for (depth, is_vector), parameters in sorted(groups.items(), key=itemgetter(0))
    ]  # fmt: skip


def is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether the whole parameter has more than one dimension, also where ZeRO-3 has partitioned it already."""
    # IA3's scales are vectors that begin at 1, but peft keeps them as matrices of one row or column.
    return len(getattr(parameter, "ds_shape", parameter.shape)) > 1 and ".ia3_l." not in name


def build(spec: TrainSpec, model: torch.nn.Module, world: ProcessGroup, precision: Precision) -> Any:
    """The DeepSpeed engine that trains `model`; raises ConfigurationError for settings that DeepSpeed refuses."""
    import deepspeed

    if spec.training.gradient_checkpointing:
        _checkpoint_gradients(model, reentrant=spec.deepspeed.zero_stage == 3)
    settings = spec.training.optimizer
    depths = None
    if settings.layer_decay < 1 or spec.method.unfreeze:
        field = "method.unfreeze" if spec.method.unfreeze else "training.optimizer.layerDecay"
        depths = measure(model, f"spec.{field}")
    groups = parameter_groups(model, settings.weight_decay, depths, settings.layer_decay)
    config = deepspeed_config(spec, world.size, precision)
    try:
        engine, *_ = deepspeed.initialize(model=model, optimizer=_optimizer(groups, settings), config=config)
    except (ValueError, AssertionError, NotImplementedError) as error:
        if not spec.deepspeed.config:
            raise
        raise ConfigurationError(f"spec.deepspeed.config: DeepSpeed refuses it ({error}); change or remove it") from error
    return engine


def _optimizer(groups: list[dict[str, Any]], settings: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        # One kernel for all of a flat partition; the offloaded optimizer works on host memory, where it exists as well.
        fused=True,
    )


def _checkpoint_gradients(model: Any, reentrant: bool) -> None:
    # Non-reentrant recomputation compares shapes, which ZeRO-3 changes as it gathers and releases parameters.
    if not hasattr(model, "gradient_checkpointing_enable") or not getattr(model, "supports_gradient_checkpointing", True):
        raise ConfigurationError("spec.training.gradientCheckpointing: this model does not offer it; remove it")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        # With frozen weights below it, a reentrant segment has no gradient to recompute for unless its input asks for one.
        model.enable_input_require_grads()


def step(engine: Any, learning_rate: float, max_norm: float) -> float:
    """Take one optimizer step, each group of parameters at its share of the rate.

    Returns the gradients' L2 norm over all parameters, before clipping. Infinite or NaN when a gradient was; the weights have
    then not moved (stage 0 and all half precision) or must not be used.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]
    if _is_plain(engine):
        # DeepSpeed hands the optimizer through here, clips without saying by how much, and would apply a NaN.
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            return norm
        if max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(engine.module.parameters(), max_norm, torch.tensor(norm))
        engine.step()
        return norm
    try:
        engine.step()
    except Exception as error:
        # DeepSpeed's bare Exception for gradients that overflow at every loss scale.
        if skips_overflow(engine) and "loss scale" in str(error):
            return math.nan
        raise
    norm = float(engine.get_global_grad_norm())
    # DeepSpeed marks what is not a number with a negative one.
    return norm if norm >= 0 else math.inf


def skips_overflow(engine: Any) -> bool:
    """Whether the engine answers an overflow by a smaller loss scale and another try: Float16 alone does."""
    return bool(engine.fp16_enabled())


def _is_plain(engine: Any) -> bool:
    return isinstance(engine.optimizer, torch.optim.Optimizer)
