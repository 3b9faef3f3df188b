"""Whether a model keeps the documents of a packed row apart: found by experiment, as families differ and do not say.

Llama, GPT-2 and most others read it from position_ids. OPT, Falcon and MPT take positions and still let documents see each
other; they obey a mask of four dimensions. Models with a recurrent state (Mamba) or with ALiBi made from a mask of two
dimensions (BLOOM) cannot be packed. A wrong guess would only be a slightly worse model, which nobody would notice.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from finetune_trainer.data.loading.collate import PackedAs, block_mask
from finetune_trainer.protocol.outcome import ConfigurationError

LENGTH = 4  # tokens of each document of the experiment


def examine(model: PreTrainedModel, *, packing: bool, causal: bool = True) -> PackedAs | None:
    """How rows must be collated for this model: None without packing. Call it where the model will run, before the engine.

    Costs a few forward passes over eight tokens, and leaves the model as it was. Raises ConfigurationError for a model that
    cannot compute at all with its configuration, that sees tokens to come though it is to be `causal`, or that does not though
    it is not, or whose documents cannot be kept apart.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            _validate_attention_direction(model, causal)
            return _packed_as(model, causal) if packing else None
    finally:
        model.train(was_training)


def _validate_attention_direction(model: PreTrainedModel, causal: bool) -> None:
    try:
        before_one, before_other = (_logits(model, [0, 1, 2, last])[:, :-1] for last in (3, 4))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        text = str(error).strip().split("\n", 1)[0]
        raise ConfigurationError(
            f"spec.model.config: a {_type(model)} of this configuration cannot compute ({type(error).__name__}: {text}): "
            "correct its sizes"
        ) from error
    sees_the_future = not _same(before_one, before_other)
    if sees_the_future and causal:
        raise ConfigurationError(
            f"spec.model: this {_type(model)} sees the tokens that it is to predict: set model.config.is_decoder: true, "
            "or use a causal language model"
        )
    if not sees_the_future and not causal:
        raise ConfigurationError(
            f"spec.model: this {_type(model)} sees only what stands before a hidden token: remove is_decoder from "
            "model.config, or use an encoder such as BERT"
        )


def _packed_as(model: PreTrainedModel, causal: bool) -> PackedAs:
    if str(model.config._attn_implementation).startswith("flash"):
        # Its kernels take the documents' boundaries from the positions, and no mask.
        if _keeps_apart(model, PackedAs.FLAT, causal):
            return PackedAs.FLAT
    else:
        for way in (PackedAs.POSITIONS, PackedAs.MASK):
            if _keeps_apart(model, way, causal):
                return way
    raise ConfigurationError(
        f"spec.data.packing: documents packed into one row would see each other in a {_type(model)}: set data.packing: false"
    )


def _keeps_apart(model: PreTrainedModel, way: PackedAs, causal: bool) -> bool:
    """Whether the second document of a row has the same logits whatever the first one is, and as it has alone."""
    positions = torch.arange(LENGTH).repeat(2)[None]
    more = {"position_ids": positions.to(model.device)}
    if way is PackedAs.MASK:
        more["attention_mask"] = block_mask(positions, model.dtype, causal=causal).to(model.device)
    second = [4, 3, 2, 1]
    try:
        beside_one = _logits(model, [0, 1, 2, 3, *second], **more)[:, LENGTH:]
        beside_other = _logits(model, [3, 1, 0, 2, *second], **more)[:, LENGTH:]
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False  # the family does not take such arguments
    return _same(beside_one, beside_other) and _same(beside_one, _logits(model, second), rounding=16)


def _logits(model: PreTrainedModel, ids: list[int], **more: torch.Tensor) -> torch.Tensor:
    # With a cache, transformers takes the row for the continuation of an earlier one, and does not look for documents in it.
    cache = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    logits: torch.Tensor = model(input_ids=torch.tensor([ids], device=model.device), **cache, **more).logits
    return logits


def _same(one: torch.Tensor, other: torch.Tensor, rounding: int = 1) -> bool:
    """Equal but for the order of sums: what is masked contributes exactly nothing."""
    # What is not a number is for the loop to report, in the first step; here it must not pass for a leak.
    one, other = torch.nan_to_num(one), torch.nan_to_num(other)
    tolerance = rounding * (1e-5 if one.dtype == torch.float32 else 4e-3)
    return bool((one - other).abs().max() <= tolerance * one.abs().max())


def _type(model: PreTrainedModel) -> str:
    return str(model.config.model_type)
