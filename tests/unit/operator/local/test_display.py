"""Progress of a local run in a terminal and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from finetune_operator.local import display
from finetune_trainer.protocol.outcome import Progress, RunStatus, SavedCheckpoint

PREPARING = RunStatus(activity="Preparing", detail="1,500 of 2,000 rows encoded", share=0.75)
TRAINING = RunStatus(
    activity="Training",
    progress=Progress(
        step=40, total_steps=200, percent=20, remaining_seconds=65, tokens_per_second=1234.5, loss=2.5, eval_loss=2.75
    ),
    checkpoint=SavedCheckpoint(step=40, time="2026-01-01T00:00:00Z", uri="file:///out/manifests/step-00000040.json"),
    in_place_restarts=1,
)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (42.4, "42s"), (60, "1m00s"), (185, "3m05s"), (3725, "1h02m")])
def test_formats_durations(seconds: float, text: str) -> None:
    assert display.format_duration(seconds) == text


def test_bar_shows_the_percentage_of_prepared_rows() -> None:
    output = io.StringIO()
    screen = display.create_display(Console(file=output, force_terminal=True, width=160))
    screen.show(PREPARING)
    screen.close()
    assert "75/100 %" in output.getvalue()
    assert "1,500 of 2,000 rows encoded" in output.getvalue()


def test_draws_a_bar_in_a_terminal_and_prints_lines_to_a_file() -> None:
    for is_terminal in (True, False):
        output = io.StringIO()
        screen = display.create_display(Console(file=output, force_terminal=is_terminal, width=160))
        for status in (RunStatus(), PREPARING, TRAINING, TRAINING):
            screen.show(status)
        screen.print_message("a note")
        screen.close()
        text = output.getvalue()
        details = "loss 2.5000 · eval loss 2.7500 · 1,234 tokens/s · checkpoint at step 40 · restarts: 1 · 1m05s left"
        if is_terminal:
            assert "40/200" in text
            assert details.split(" · ", maxsplit=1)[0] in text
        else:
            assert text == f"Starting\nPreparing · 1,500 of 2,000 rows encoded\nTraining · step 40/200 · {details}\na note\n"
