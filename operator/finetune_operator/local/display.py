"""Shows the progress of a local run: a progress bar in a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from finetune_trainer.protocol.outcome import RunStatus

LINE_INTERVAL_SECONDS = 5.0


class Display(Protocol):
    """Shows the newest status of a run."""

    def show(self, status: RunStatus) -> None:
        """Show a status in place of the previous one."""

    def print_message(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """Stop showing the status."""


def create_display(console: Console) -> Display:
    """Create the display that suits the console."""
    return ProgressBar(console) if console.is_terminal else PlainLines(console)


def format_duration(seconds: float) -> str:
    """Format a duration as 42s, 3m05s or 1h02m."""
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left:02}m"
    if minutes:
        return f"{minutes}m{seconds_left:02}s"
    return f"{seconds_left}s"


def status_details(status: RunStatus) -> list[str]:
    """Describe what is known of a run besides its activity and step, one short phrase per fact."""
    progress = status.progress
    checkpoint_step = status.checkpoint.step if status.checkpoint else None
    known = [
        ("{}", status.detail),
        ("loss {:.4f}", progress.loss),
        ("eval loss {:.4f}", progress.eval_loss),
        ("{:,.0f} tokens/s", progress.tokens_per_second),
        ("checkpoint at step {}", checkpoint_step),
        ("restarts: {}", status.in_place_restarts or None),
    ]
    details = [template.format(value) for template, value in known if value is not None]
    if progress.remaining_seconds is not None and progress.step < progress.total_steps:
        details.append(f"{format_duration(progress.remaining_seconds)} left")
    if status.checkpoint_error is not None:
        details.append("the newest checkpoint failed")
    return details


class ProgressBar:
    """A progress bar that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.fields[total_text]}"),
            TextColumn("{task.fields[details]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("Starting", total=None, total_text="?", details="")
        self._progress.start()

    def show(self, status: RunStatus) -> None:
        """Draw the status: optimizer steps, or the percentage of an activity that has no steps."""
        completed, total, unit = status.progress.step, status.progress.total_steps, ""
        if status.share is not None:
            completed, total, unit = round(100 * status.share), 100, " %"
        self._progress.update(
            self._task,
            description=status.activity,
            completed=completed,
            total=total or None,
            total_text=f"{total or '?'}{unit}",
            details=" · ".join(status_details(status)),
        )

    def print_message(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class PlainLines:
    """A line for each new activity, and one every few seconds while steps advance."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._activity: str | None = None
        self._step = 0
        self._detail: str | None = None
        self._printed_at = 0.0

    def show(self, status: RunStatus) -> None:
        """Print the status if it is due."""
        now = time.monotonic()
        if not self._is_due(status, now):
            return
        step = status.progress.step
        self._activity, self._step, self._detail, self._printed_at = status.activity, step, status.detail, now
        words = [status.activity]
        if step:
            words.append(f"step {step}/{status.progress.total_steps}")
        if step or status.detail:
            words += status_details(status)
        self.print_message(" · ".join(words))

    def _is_due(self, status: RunStatus, now: float) -> bool:
        if status.activity != self._activity:
            return True
        has_changed = (status.progress.step, status.detail) != (self._step, self._detail)
        return has_changed and now - self._printed_at >= LINE_INTERVAL_SECONDS

    def print_message(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Do nothing: printed lines stay."""
