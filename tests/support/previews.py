"""A preview of data that no run prepared, to test how previews are shown."""

from __future__ import annotations

from typing import Any

from finetune_trainer.data.checks.registry import CHECKS_BY_NAME
from finetune_trainer.data.checks.report import Finding, LengthBin, Lengths, SourceReport, SplitReport
from finetune_trainer.objectives.description import Block, Segment
from finetune_trainer.preview.report import (
    CollatedTokens,
    DataPreview,
    RunLength,
    SampledSource,
    ShownSequence,
    SpecialToken,
)

SCRIPT = "<script>alert(1)</script>"


def preview(text: str = SCRIPT, **changes: Any) -> DataPreview:
    """A preview with one of everything; `text` is the text of a row, and the name of a label and of a column."""
    train = SplitReport(
        documents=2000, empty_documents=0, split_documents=0, truncated_documents=3, dropped_documents=1, masked_documents=0,
        examples=1999, rows=500, tokens=480_000, lengths=Lengths(shortest=4, median=240, p95=900, longest=1024),
        histogram=[LengthBin(shortest=4, longest=513, examples=1500), LengthBin(shortest=514, longest=1024, examples=499)],
        longest_row=1024, padding_share=0.0625, labels={"yes": 0.75, text: 0.25}, imbalance=3.0, digest="0",
    )  # fmt: skip
    end = SpecialToken(token="</s>", id=2, names=["eos"], count=100, trained=100)
    answer = Segment(text="blue", tokens=[5], trained=True)
    blocks = [
        Block(name="document 1", origin="rows.csv:2", segments=[Segment(text=text, tokens=[3, 4]), answer]),
        Block(name="document 2", segments=[Segment(text="[MASK]", tokens=[6], trained=True, special=True, target="sky")]),
    ]
    fields: dict[str, Any] = {
        "train": train,
        "sources": [
            SourceReport(
                field="data.train[0]",
                address="file://rows.csv",
                format="CSV",
                files=1,
                columns={"text": text},
                delimiter=";",
                notes=["the delimiter was found in the header"],
            )
        ],
        "findings": [Finding(check="truncation", split="train", rows=4, of=2000, first="rows.csv:9", done="cut or dropped")],
        "objective": "CausalLM",
        "method": "Full",
        "max_length": 1024,
        "packing": True,
        "batch_size": 8,
        "policies": dict.fromkeys(CHECKS_BY_NAME, "Warn") | {"personalData": "Ignore"},
        "sampled": [SampledSource(field="data.train[0]", rows=2000, total=10_000)],
        "collated": CollatedTokens(sequences=100, tokens=96_000, trained=48_000, special_tokens=[end]),
        "run": RunLength(
            steps=938,
            steps_per_epoch=312.5,
            epochs=3,
            sequences_per_step=8,
            tokens_per_step=7680,
            tokens=7_203_840,
            is_estimate=True,
        ),
        "warnings": ["something to know: do this"],
        "shown": [ShownSequence(index=0, tokens=4, blocks=blocks)],
    }
    return DataPreview(**fields | changes)
