"""Training loops of small models over fixed rows, with real engines, for the ranks of a test."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tests.support import tiny
from tests.support.methods import apply_method
from tests.support.ranks import Place

from finetune_trainer import objectives
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed import process_group
from finetune_trainer.distributed.preemption import Preempted, PreemptionSignal
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export import weights
from finetune_trainer.export.model import save_model
from finetune_trainer.methods.components.unfreezing import build_unfreezing
from finetune_trainer.protocol.events import Event
from finetune_trainer.protocol.outcome import LossSpikeError, NonFiniteLossError, SavedCheckpoint
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.training import engine, loss_anomaly
from finetune_trainer.training.batches import BatchSource
from finetune_trainer.training.evaluation import EvaluationResult, Evaluator, evaluate
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.skipped_batches import SkippedBatches
from finetune_trainer.training.train_state import TrainState
from finetune_trainer.training.train_step import TrainStep

Curve = list[tuple[float, float]]
"""Loss and gradient norm of each step."""


@contextlib.contextmanager
def joined(place: Place) -> Iterator[ProcessGroup]:
    """Join the process group and leave it at the end."""
    yield process_group.join(
        rank=place.rank, size=place.size, local_rank=place.rank, processes_per_node=place.size, master=place.master
    )
    process_group.leave()


ROWS = {"CausalLM": tiny.rows, "SequenceClassification": tiny.labelled}


def objective_of(spec: TrainSpec) -> objectives.Objective:
    """The document's objective with its labels set."""
    objective = objectives.from_spec(spec, tiny.tokenizer())
    objective.encoder.set_statistics({"labels": [str(label) for label in range(tiny.LABELS)]})
    return objective


@dataclass
class RecordedCheckpoints:
    """A replacement of the checkpoint manager that records what is saved."""

    every_steps: int = 1000
    saved_steps: list[int] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    last: SavedCheckpoint | None = None

    def is_due(self, step: int, /) -> bool:
        return step % self.every_steps == 0

    def save(self, step: int, client_state: dict[str, Any], best_steps: Sequence[int] = (), /) -> None:
        self.saved_steps.append(step)
        self.states.append(client_state)

    def load_best(self, best_steps: Sequence[int], /) -> int | None:
        return None

    def restore(self) -> dict[str, Any] | None:
        return None

    def finish(self) -> None:
        pass


Factors = Mapping[int, float]
"""By row, counted from 100 times the number of its batch, the factor of the loss of its micro-batch."""


@dataclass
class LossWithFactors:
    """An objective's loss, with which broken rows can be imitated."""

    loss: Any
    factors: Factors
    upcoming: list[list[int]] = field(default_factory=list)
    """The rows of the next micro-batches of this step."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loss, name)

    def loss_sum(self, engine: Any, batch: Any) -> Any:
        loss = self.loss.loss_sum(engine, batch)
        for row in self.upcoming.pop(0) if self.upcoming else ():
            loss = loss * self.factors.get(row, 1.0)
        return loss


@dataclass
class TrainingRun:
    """A training loop over fixed rows, its checkpoints and the events that it reported."""

    loop: TrainingLoop
    checkpoints: RecordedCheckpoints
    events: list[Event]

    @property
    def engine(self) -> Any:
        return self.loop.train_step.engine

    @property
    def objective(self) -> objectives.Objective:
        return self.loop.train_step.objective

    @property
    def curve(self) -> Curve:
        """The loss and the gradient norm of each reported step."""
        return [(event.progress.loss, event.gradient_norm) for event in self.events if event.event == "step"]

    def save(self, spec: TrainSpec, folder: Path) -> None:
        """Export the model into the folder."""
        save_model(self.engine.module, self.objective, spec.export, spec.model, self.loop.group, folder)


def build_run(group: ProcessGroup, spec: TrainSpec, model: Any, factors: Factors | None = None) -> TrainingRun:
    """A run over rows that depend only on the batch's number; each rank gets a contiguous part of them.

    `factors` changes the loss of micro-batches with certain rows.
    """
    training = spec.training
    steps = training.max_steps or 1
    rows_per_rank = training.batch_size // group.size
    objective = objective_of(spec)
    loss = LossWithFactors(objective.loss, factors or {})
    objective = replace(objective, loss=loss)

    def training_batches(finished_steps: int, skipped: SkippedBatches) -> Iterator[list[MicroBatch]]:
        for step in range(finished_steps, steps):
            number = skipped.batch_of_step(step) + 1
            rows = ROWS[spec.objective.type](training.batch_size, seed=number)
            size = training.micro_batch_size
            begins = range(group.rank * rows_per_rank, (group.rank + 1) * rows_per_rank, size)
            places = [[number * 100 + row for row in range(begin, begin + size)] for begin in begins]
            loss.upcoming = list(places)
            parts = [tiny.micro(tiny.batch(tiny.part(rows, begin, begin + size)), objective) for begin in begins]
            yield [part._replace(rows=place) for part, place in zip(parts, places, strict=True)]

    events: list[Event] = []
    checkpoints = RecordedCheckpoints()
    precision = engine.choose_precision(training.precision, group.device)
    built = engine.build_engine(model, training, spec.deepspeed, spec.method.unfreeze, group, precision)
    batches = BatchSource(training_batches, origins=lambda rows: [f"rows.jsonl:{row}" for row in rows])
    loop = TrainingLoop(
        training=training,
        evaluation=spec.evaluation,
        export_best=spec.export.best,
        group=group,
        train_step=TrainStep(
            built, objective, group, training, steps, unfreezing=build_unfreezing(built, spec.method.unfreeze)
        ),
        evaluator=Evaluator(built, objective, group, batches),
        batches=batches,
        checkpoints=checkpoints,
        reporter=Reporter(events.append, group, total_steps=steps, steps_per_epoch=2.5, log_every=1),
        stop=PreemptionSignal(),
        total_steps=steps,
    )
    return TrainingRun(loop, checkpoints, events)


def loss_curves(place: Place, model_name: str, cases: list[dict[str, Any]]) -> list[Curve]:
    """The curve of each case of changes to the document."""
    curves = []
    with joined(place) as group:
        for changes in cases:
            run = build_run(group, tiny.spec(**changes), getattr(tiny, model_name)())
            run.loop.run()
            curves.append(run.curve)
    return curves


def changed_weights(place: Place, cases: list[dict[str, Any]]) -> list[tuple[Curve, list[set[str]]]]:
    """For each case of a Llama its curve and the names of the weights that each step changed."""
    results = []
    with joined(place) as group:
        for changes in cases:
            spec = tiny.spec(**changes)
            run = build_run(group, spec, apply_method(tiny.llama(), spec, objective_of(spec)))
            snapshots = _record_weights(run, group)
            run.loop.run()
            snapshots.append(weights.gather_model_weights(run.engine.module, group))
            changed = []
            for before, after in itertools.pairwise(snapshots):
                changed.append({name for name, weight in after.items() if not torch.equal(weight, before[name])})
            results.append((run.curve, changed))
    return results


def _record_weights(run: TrainingRun, group: ProcessGroup) -> list[dict[str, torch.Tensor]]:
    """A list to which the run adds the model's weights before each step."""
    snapshots: list[dict[str, torch.Tensor]] = []
    training_batches = run.loop.batches.training

    def recording(finished_steps: int, skipped: SkippedBatches) -> Iterator[list[MicroBatch]]:
        for micro_batches in training_batches(finished_steps, skipped):
            snapshots.append(weights.gather_model_weights(run.engine.module, group))
            yield micro_batches

    run.loop.batches.training = recording
    return snapshots


def reference_curve(model: Any, spec: TrainSpec, rates: list[float]) -> Curve:
    """The curve in plain torch: one process, the whole batch at once, transformers' own loss."""
    settings = spec.training.optimizer
    optimizer = torch.optim.AdamW(
        engine.parameter_groups(model, settings.weight_decay), betas=(settings.beta1, settings.beta2), eps=settings.epsilon
    )
    curve = []
    for step, rate in enumerate(rates, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**tiny.rows(spec.training.batch_size, seed=step)).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.training.max_gradient_norm)
        optimizer.step()
        curve.append((loss.item(), norm.item()))
    return curve


def non_finite_errors(place: Place, cases: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """For each case the message of the run's NonFiniteLossError and the steps it had saved by then."""
    results = []
    with joined(place) as group:
        for changes in cases:
            run = build_run(group, tiny.spec(**changes), tiny.llama())
            run.checkpoints.every_steps = 2
            try:
                run.loop.run()
                results.append(("", run.checkpoints.saved_steps))
            except NonFiniteLossError as error:
                results.append((str(error), run.checkpoints.saved_steps))
    return results


class AnomalyResult(NamedTuple):
    """A run's curve, its anomalies, and the message of the error that ended it."""

    curve: Curve
    anomalies: list[tuple[int, str]]
    error: str | None


def runs_with_factors(place: Place, cases: list[tuple[dict[str, Any], Factors, list[list[int]]]]) -> list[AnomalyResult]:
    """For each case of changes, factors of rows and skipped batches what the run gave."""
    loss_anomaly.MIN_LOSSES = 2
    results = []
    with joined(place) as group:
        for changes, factors, skipped in cases:
            run = build_run(group, tiny.spec(**changes), tiny.llama(), factors)
            run.loop.state.anomalies.skipped_batches = SkippedBatches.from_list(skipped)
            error = None
            try:
                run.loop.run()
            except (NonFiniteLossError, LossSpikeError) as raised:
                error = str(raised)
            results.append(AnomalyResult(run.curve, run.loop.state.history.anomalies, error))
    return results


def stop_and_resume(place: Place, changes: dict[str, Any], signals: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """For each pair, send SIGTERM to this rank during this step, then resume from the saved state in a new loop."""
    with joined(place) as group:
        return [_stop_and_resume(group, changes, *pair) for pair in signals]


def _stop_and_resume(group: ProcessGroup, changes: dict[str, Any], signaled_rank: int, signaled_step: int) -> dict[str, Any]:
    run = build_run(group, tiny.spec(**changes), tiny.llama())
    loop, checkpoints = run.loop, run.checkpoints
    original_batches = loop.batches.training

    def interrupted_batches(finished_steps: int, skipped: SkippedBatches) -> Iterator[list[MicroBatch]]:
        for step, micro_batches in enumerate(original_batches(finished_steps, skipped), start=finished_steps + 1):
            if step == signaled_step and group.rank == signaled_rank:
                os.kill(os.getpid(), signal.SIGTERM)
            yield micro_batches

    loop.batches.training = interrupted_batches
    loop.stop.install()
    try:
        loop.run()
        ended = "Complete"
    except Preempted as error:
        ended = str(error)
    stopped = list(checkpoints.saved_steps)
    if ended != "Complete":
        loop.batches.training, loop.stop = original_batches, PreemptionSignal()
        loop.state = TrainState.from_dict(checkpoints.states[-1]) if checkpoints.states else TrainState()
        loop.run()
    steps = [event.progress.step for event in run.events if event.event == "step"]
    return {
        "ended": ended,
        "stopped": stopped,
        "saved": checkpoints.saved_steps,
        "steps": steps,
        "history": loop.state.history.to_dict(),
    }


def evaluate_row_counts(place: Place, counts: list[int], stage: int) -> list[EvaluationResult | None]:
    """The result for each number of rows, distributed unevenly over the ranks; the last one is interrupted."""
    spec = tiny.spec(deepspeed={"zeroStage": stage})
    objective = objectives.from_spec(spec, tiny.tokenizer())
    with joined(place) as group:
        model = engine.build_engine(tiny.llama(), spec.training, spec.deepspeed, None, group, "Float32")
        results = []
        for count in counts:
            rows = tiny.rows(count)
            rows_per_rank = -(-count // group.size)
            empty = tiny.part(rows, 0, 1) | {"labels": torch.full((1, 16), tiny.IGNORED)}
            steps = []
            for row in range(group.rank, rows_per_rank * group.size, group.size):
                batch = tiny.part(rows, row, row + 1) if row < count else empty
                steps.append([tiny.micro(tiny.batch(batch), objective)])
            results.append(evaluate(model, objective, steps, group, lambda: True))
        results.append(evaluate(model, objective, steps, group, lambda: False))
    return results
