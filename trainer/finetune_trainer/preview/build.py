"""Builds the preview of a run's data from its prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.checks.registry import CHECKS
from finetune_trainer.data.preprocessing.prepare import Prepared
from finetune_trainer.objectives import Objective
from finetune_trainer.objectives.model_setups.encoder_decoder import EncoderDecoderSetup
from finetune_trainer.preview.mixture import source_shares
from finetune_trainer.preview.report import CollatedTokens, DataPreview, RunLength, SampledSource
from finetune_trainer.preview.run_length import run_length
from finetune_trainer.preview.sequences import CollatedSequences
from finetune_trainer.preview.tokens import count_tokens

COUNTED_SEQUENCES = 100


def build_preview(
    spec: TrainSpec, objective: Objective, data: Prepared, sampled: Sequence[SampledSource] = (), rows: int = 0
) -> DataPreview:
    """The preview of the prepared data; it shows the first `rows` rows of each source.

    `sampled` are the sources of which only the first rows were prepared.
    """
    sequences = CollatedSequences(spec, objective, data)
    collated = count_tokens(map(sequences.blocks, _spread(len(sequences))), objective.processor)
    length = run_length(spec, data.epoch, data.report.train, sampled)
    return DataPreview(
        **dict(data.report),
        objective=spec.objective.type,
        method=spec.method.type,
        max_length=spec.data.max_length,
        packing=spec.packing,
        batch_size=spec.training.batch_size,
        policies={check.name: check.policy(spec.data.checks) for check in CHECKS},
        sampled=list(sampled),
        collated=collated,
        run=length,
        shares=source_shares(spec, data),
        warnings=list(dict.fromkeys(_warnings(spec, objective, collated, length))),
        shown=sequences.first(rows),
    )


def _spread(count: int) -> list[int]:
    """At most `COUNTED_SEQUENCES` indices below `count`, at equal distances, as packing puts the longest documents first."""
    return sorted(set(np.linspace(0, count - 1, min(count, COUNTED_SEQUENCES)).astype(int).tolist()))


def _warnings(
    spec: TrainSpec, objective: Objective, collated: CollatedTokens | None, length: RunLength
) -> Iterator[str]:  # fmt: skip
    """Sentences about what would surprise, with the remedy."""
    yield from objective.notes
    for member in objective.members.values():
        mismatch = member.model_setup.head_mismatch()
        if mismatch and member.model_setup.continues_task:
            yield f"spec.model.source: {mismatch}: the head starts with new weights"
    learns_to_stop = spec.objective.config.generates_text or isinstance(objective.model_setup, EncoderDecoderSetup)
    if collated is not None and learns_to_stop and not any(token.trained for token in collated.special_tokens):
        eos = getattr(objective.processor, "eos_token", None)
        yield (
            f"no special token is trained on in {collated.sequences:,} sequences, so the model does not learn where to stop: "
            f"end the texts with {eos or 'an end-of-text token'}, or raise data.maxLength if the ends are cut"
        )
    if length.epochs < 1 and not length.is_lower_bound:
        yield (
            f"training.maxSteps ends the run after {length.epochs:.2f} epochs, so that not all rows are seen: raise it, or set "
            "training.epochs instead"
        )
    tokenizer = spec.model.tokenizer
    if length.is_estimate and tokenizer is not None and tokenizer.train is not None:
        yield (
            "the tokenizer was trained on the rows that were read, and a run trains it on all rows, which gives other tokens: "
            "read all rows with --all"
        )
