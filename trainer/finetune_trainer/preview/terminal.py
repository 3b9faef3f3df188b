"""Prints the preview: in color in a terminal, with marks elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_trainer.objectives.description import Block, Segment
from finetune_trainer.preview.facts import (
    SPLIT_TITLES,
    Bar,
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

BAR_WIDTH = 40
MAX_CHARACTERS = 2000
"""Of a block; a page or the JSON has all."""
TRAINED, READ, TARGET = "bold green", "bright_black", "bold magenta"
OPEN, CLOSE, ARROW = "«", "»", " → "


def print_preview(preview: DataPreview, name: str, console: Console) -> None:
    """Print the preview of the job with this name."""
    console.print(Text(f"{name}: {preview.objective}, {preview.method}; {preview.coverage}", style="bold"))
    _print_section(console, "Sources", [_fact_table(source_facts(preview))])
    for split, report in preview.splits.items():
        parts: list[RenderableType] = [_fact_table(split_facts(report, preview))]
        for title, bars in (("tokens", length_bars(report)), ("labels", label_bars(report))):
            if bars:
                parts.append(_bar_table(title, bars))
        _print_section(console, SPLIT_TITLES[split], parts)
    _print_section(console, "Checks", [_fact_table(check_facts(preview))])
    if preview.collated is not None:
        _print_section(
            console, f"Tokens of {preview.collated.sequences:,} sequences", [_fact_table(token_facts(preview.collated))]
        )
    _print_section(console, "Run", [_fact_table(run_facts(preview))])
    if preview.warnings:
        _print_section(console, "Warnings", [_fact_table(Fact("", warning) for warning in preview.warnings)])
    _print_rows(console, preview)


def _print_section(console: Console, title: str, parts: Sequence[RenderableType]) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(Padding(Group(*parts), (0, 0, 0, 2), expand=False))


def _fact_table(facts: Iterable[Fact]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=14, no_wrap=True)
    table.add_column(overflow="fold")
    for subject, sentence in facts:
        table.add_row(Text(printable(subject)), Text(printable(sentence)))
    return table


def _bar_table(title: str, bars: Sequence[Bar]) -> Table:
    largest = max(bar.value for bar in bars) or 1
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=14, no_wrap=True)
    table.add_column(justify="right", max_width=30, overflow="ellipsis", no_wrap=True)
    table.add_column(min_width=BAR_WIDTH)
    table.add_column(justify="right")
    for number, bar in enumerate(bars):
        length = round(BAR_WIDTH * bar.value / largest)
        drawn = "█" * length or ("▏" if bar.value else "")
        table.add_row(title if number == 0 else "", Text(printable(bar.name)), Text(drawn), bar.text)
    return table


def _print_rows(console: Console, preview: DataPreview) -> None:
    if not preview.shown:
        return
    colored = console.color_system is not None
    legend = Text("First rows, as the model gets them: ")
    legend.append_text(_segments([Segment(text="trained on", trained=True), Segment(text=", only read")], colored))
    console.print()
    console.print(legend)
    for sequence in preview.shown:
        size = f", {sequence.tokens:,} tokens" if sequence.tokens else ""
        console.rule(Text(f"sequence {sequence.index}{size}"), align="left", style=READ, characters="─")
        for block in sequence.blocks:
            console.print(_block_title(block))
            console.print(Padding(_block_text(block, colored), (0, 0, 0, 2), expand=False))


def _block_title(block: Block) -> Text:
    return Text(f"{block.name} ({printable(block.origin)})" if block.origin else block.name, style="italic")


def _block_text(block: Block, colored: bool) -> Text:
    if block.picture is not None:
        return Text(f"{block.picture.width} x {block.picture.height} pixels (--html shows it)")
    return _segments(visible_segments(block, MAX_CHARACTERS), colored)


def _segments(segments: Iterable[Segment], colored: bool) -> Text:
    return _colored(segments) if colored else Text(_marked(segments))


def _colored(segments: Iterable[Segment]) -> Text:
    text = Text()
    for segment in segments:
        style = TRAINED if segment.trained else READ
        text.append(segment.text, style=f"{style} underline" if segment.special else style)
        if segment.target is not None:
            text.append(f"{ARROW}{segment.target} ", style=TARGET)
    return text


def _marked(segments: Iterable[Segment]) -> str:
    parts = []
    for is_trained_text, group in groupby(segments, lambda segment: segment.trained and segment.target is None):
        if is_trained_text:
            parts.append(f"{OPEN}{''.join(segment.text for segment in group)}{CLOSE}")
        else:
            parts += [_marked_segment(segment) for segment in group]
    return "".join(parts)


def _marked_segment(segment: Segment) -> str:
    if segment.target is None:
        return segment.text
    word = segment.text.lstrip()
    blanks = segment.text[: len(segment.text) - len(word)]
    return f"{blanks}{OPEN}{word}{ARROW}{segment.target}{CLOSE}"
