"""Detects by experiment whether a model keeps the documents of a packed row apart: families differ and do not declare it.

Llama, GPT-2 and most others derive it from position_ids. OPT, Falcon and MPT accept position_ids but still attend across
documents; they need a 4D attention mask. Models with a recurrent state (Mamba), or whose ALiBi biases are computed from a 2D
mask (BLOOM), do not support packing. A wrong guess would go unnoticed: it only makes the model slightly worse.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from finetune_trainer.data.loading.collate import PackedAs, block_mask
from finetune_trainer.huggingface.pretrained import training_mode
from finetune_trainer.models.small_model import create_small_model
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.outcome import ConfigurationError, first_line

DOCUMENT_LENGTH = 4
"""Tokens of each document of the experiment."""
MAX_SHARE_OF_LEAK = 0.05
"""How much of the change that another document causes without boundaries it may cause with them; rounding is far below."""


@heartbeat.while_busy()
def detect_packing_support(model: PreTrainedModel, *, packing: bool, causal: bool = True) -> PackedAs | None:
    """The form in which packed rows must be passed to this model; None without packing.

    Call it with the model on the device that it is trained on, before the engine is built. It takes a few forward passes over
    eight tokens and does not change the model. Raises ConfigurationError for a model that cannot compute with its
    configuration, whose attention is not causal although `causal` is set or the other way round, or that does not support
    packing.
    """
    with training_mode(model, False), torch.no_grad():
        _validate_computation(model)
    subject = _model_of_experiment(model)
    with training_mode(subject, False), torch.no_grad():
        _validate_attention_direction(subject, causal)
        if not packing:
            return None
        form = find_packing_form(subject, causal)
    if form is None:
        raise ConfigurationError(f"spec.data.packing: {explain_missing_support(model.config)}: set data.packing: false")
    return form


def explain_missing_support(config: PreTrainedConfig) -> str:
    """Why packing is not possible, as a clause."""
    return f"a {config.model_type} attends across the documents of a packed row"


@torch.no_grad()
def find_packing_form(model: PreTrainedModel, causal: bool) -> PackedAs | None:
    """The form in which packed rows must be passed to a model in evaluation mode; None if it does not support packing."""
    forms = [PackedAs.POSITIONS, PackedAs.MASK]
    if _uses_flash_attention(model):
        forms = [PackedAs.FLAT]  # its kernels take the documents' boundaries from the positions, and no mask
    for form in forms:
        if _keeps_documents_apart(model, form, causal):
            return form
    return None


def _model_of_experiment(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or a small one like it in float32: half precision can round away what leaks between documents."""
    if model.dtype == torch.float32 or _uses_flash_attention(model):
        return model
    return create_small_model(type(model)._from_config, model.config, model.config._attn_implementation) or model


def _validate_computation(model: PreTrainedModel) -> None:
    try:
        _compute_logits(model, [0, 1, 2, 3])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise ConfigurationError(
            f"spec.model.config: a {_model_type(model)} with this configuration cannot compute "
            f"({type(error).__name__}: {reason}): correct its sizes"
        ) from error


def _validate_attention_direction(model: PreTrainedModel, causal: bool) -> None:
    """Compare the logits of the first tokens of two rows that differ only in the last one."""
    logits, other_logits = (_compute_logits(model, [0, 1, 2, last])[:, :-1] for last in (3, 4))
    attends_to_future = not _is_equal(logits, other_logits)
    if attends_to_future and causal:
        raise ConfigurationError(
            f"spec.model: this {_model_type(model)} attends to the tokens that it has to predict: set model.config.is_decoder: "
            "true, or use a causal language model"
        )
    if not attends_to_future and not causal:
        raise ConfigurationError(
            f"spec.model: this {_model_type(model)} attends only to the tokens before a masked one: remove is_decoder from "
            "model.config, or use an encoder such as BERT"
        )


def _keeps_documents_apart(model: PreTrainedModel, form: PackedAs, causal: bool) -> bool:
    """Whether the second document of a row has the same logits after two different documents and alone in a row."""
    positions = torch.arange(DOCUMENT_LENGTH).repeat(2)[None]
    inputs = {"position_ids": positions.to(model.device)}
    if form is PackedAs.MASK:
        inputs["attention_mask"] = block_mask(positions, model.dtype, causal=causal).to(model.device)
    document = [4, 3, 2, 1]
    row, other_row = [0, 1, 2, 3, *document], [3, 1, 0, 2, *document]
    try:
        logits = _compute_logits(model, row, **inputs)[:, DOCUMENT_LENGTH:]
        other_logits = _compute_logits(model, other_row, **inputs)[:, DOCUMENT_LENGTH:]
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False  # the family does not accept such arguments
    if not _is_equal(logits, other_logits):
        return False
    # The logits of half precision may be equal up to rounding although the documents are not kept apart.
    leaking = (_compute_logits(model, tokens)[:, DOCUMENT_LENGTH:] for tokens in (row, other_row))
    if _distance(logits, other_logits) > MAX_SHARE_OF_LEAK * _distance(*leaking):
        return False
    return _is_equal(logits, _compute_logits(model, document), tolerance_factor=16)


def _compute_logits(model: PreTrainedModel, token_ids: list[int], **inputs: torch.Tensor) -> torch.Tensor:
    # With a cache, transformers takes a row for the continuation of an earlier one and does not look for documents in it.
    cache = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    logits: torch.Tensor = model(input_ids=torch.tensor([token_ids], device=model.device), **cache, **inputs).logits
    return logits


def _is_equal(logits: torch.Tensor, other: torch.Tensor, tolerance_factor: int = 1) -> bool:
    """Whether logits are equal up to the order of sums: masked tokens contribute exactly zero."""
    # The training loop reports NaN at the first step; here it must not be taken for attention across documents.
    tolerance = tolerance_factor * (1e-5 if logits.dtype == torch.float32 else 4e-3)
    return _distance(logits, other) <= tolerance * float(torch.nan_to_num(logits).abs().max())


def _distance(logits: torch.Tensor, other: torch.Tensor) -> float:
    return float((torch.nan_to_num(logits) - torch.nan_to_num(other)).abs().max())


def _uses_flash_attention(model: PreTrainedModel) -> bool:
    return str(model.config._attn_implementation).startswith("flash")


def _model_type(model: PreTrainedModel) -> str:
    return str(model.config.model_type)
