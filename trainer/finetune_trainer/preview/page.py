"""Renders the preview as one HTML page without scripts and without anything to load, to share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jinja2

from finetune_trainer.objectives.description import Block, Segment
from finetune_trainer.preview.facts import (
    SPLIT_TITLES,
    Fact,
    check_facts,
    label_bars,
    length_bars,
    run_facts,
    source_facts,
    split_facts,
    token_facts,
)
from finetune_trainer.preview.printable import printable, visible_segments
from finetune_trainer.preview.report import DataPreview

TEMPLATE = "page.html.jinja"
MAX_CHARACTERS = 20_000
"""Of a block; the JSON has all."""


def render_page(preview: DataPreview, name: str) -> str:
    """The page about the data of the job with this name; all text is escaped, as data and documents are not trusted."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("finetune_trainer.preview", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"printable": printable, "segments": _segments}
    splits = []
    for split, report in preview.splits.items():
        splits.append(
            {
                "title": SPLIT_TITLES[split],
                "facts": split_facts(report, preview),
                "lengths": length_bars(report),
                "labels": label_bars(report),
            }
        )
    parts: dict[str, Any] = {
        "sources": map(_printable_fact, source_facts(preview)),
        "splits": splits,
        "checks": map(_printable_fact, check_facts(preview)),
        "tokens": list(token_facts(preview.collated)) if preview.collated else [],
        "run": run_facts(preview),
    }
    return environment.get_template(TEMPLATE).render(preview=preview, name=name, **parts)


def _printable_fact(fact: Fact) -> Fact:
    return Fact(printable(fact.subject), printable(fact.sentence))


def _segments(block: Block) -> Iterator[Segment]:
    return visible_segments(block, MAX_CHARACTERS)
