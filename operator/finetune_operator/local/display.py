"""A local run's progress for the person in front of it: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from finetune_trainer.protocol.outcome import RunStatus

LINE_SECONDS = 5.0  # between two plain lines


class Display(Protocol):
    """Shows the newest status again and again."""

    def show(self, status: RunStatus) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def display(console: Console) -> Display:
    """What fits where the output goes."""
    return Bar(console) if console.is_terminal else Lines(console)


def duration(seconds: float) -> str:
    """Time as people write it: 42s, 3m05s, 1h02m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def facts(status: RunStatus) -> list[str]:
    """What is known of a run beyond its step, each in a few words."""
    progress = status.progress
    known = [
        ("{}", status.detail),
        ("loss {:.4f}", progress.loss),
        ("eval loss {:.4f}", progress.eval_loss),
        ("{:,.0f} tokens/s", progress.tokens_per_second),
        ("checkpoint of step {}", status.checkpoint.step if status.checkpoint else None),
        ("restarts: {}", status.in_place_restarts or None),
    ]
    words = [text.format(value) for text, value in known if value is not None]
    if progress.remaining_seconds is not None and progress.step < progress.total_steps:
        words.append(f"{duration(progress.remaining_seconds)} left")
    if status.checkpoint_error is not None:
        words.append(f"no checkpoint: {status.checkpoint_error}")
    return words


class Bar:
    """One bar that is drawn anew in its place."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.fields[steps]}"),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("Starting", total=None, steps="?", facts="")
        self._progress.start()

    def show(self, status: RunStatus) -> None:
        """Draw the status."""
        done, total, unit = status.progress.step, status.progress.total_steps, ""
        if status.share is not None:
            done, total, unit = round(100 * status.share), 100, " %"
        self._progress.update(
            self._task, description=status.activity, completed=done, total=total or None,
            steps=f"{total or '?'}{unit}", facts=" · ".join(facts(status)),
        )  # fmt: skip

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class Lines:
    """A line whenever something else is done, and every few seconds while steps go on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._activity: str | None = None
        self._step = 0
        self._detail: str | None = None
        self._printed = 0.0

    def show(self, status: RunStatus) -> None:
        """Print the status if it is worth a line."""
        step, now = status.progress.step, time.monotonic()
        is_news = (step, status.detail) != (self._step, self._detail)
        if status.activity == self._activity and (not is_news or now - self._printed < LINE_SECONDS):
            return
        self._activity, self._step, self._detail, self._printed = status.activity, step, status.detail, now
        words = [f"step {step}/{status.progress.total_steps}"] if step else []
        words += facts(status) if step or status.detail else []
        self.note(" · ".join([status.activity, *words]))

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is left to be taken away."""
