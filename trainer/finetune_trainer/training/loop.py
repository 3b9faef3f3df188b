"""The training loop: fetch, agree, compute, step, report. It is meant to be read from top to bottom.

All ranks take the same way through it: whatever decides the way (a stop, a checkpoint that the clock asks for, a loss that
is not finite) is summed over the ranks first.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Protocol

import torch

from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.collate import to_device
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed.preemption import Preempted, PreemptedUnsaved, PreemptionSignal
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.methods.unfreezing import Unfreezing
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.events import Alive
from finetune_trainer.protocol.outcome import NonFiniteLossError, SavedCheckpoint, StorageError
from finetune_trainer.tracking import early_stopping
from finetune_trainer.tracking.history import History
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.training import lr_schedule
from finetune_trainer.training.engine import skips_overflow
from finetune_trainer.training.engine import step as take_optimizer_step
from finetune_trainer.training.evaluation import evaluate
from finetune_trainer.training.regularization import Regularizer

log = logging.getLogger(__name__)


class Checkpointer(Protocol):
    """What the loop asks of the checkpoints; `finetune_trainer.checkpoint.Checkpoints` is the real one."""

    def due(self, step: int) -> bool: ...

    def save(self, step: int, client_state: dict[str, Any], best_first: Sequence[int] = ()) -> None: ...

    def load_best(self, best_first: Sequence[int]) -> int | None: ...

    def finish(self) -> None: ...

    @property
    def last(self) -> SavedCheckpoint | None: ...


@dataclass
class Run:
    """Everything one rank's loop works with.

    `batches(step)` gives this rank's micro-batches of the step after `step`, and of each one after that; `evaluation()` this
    rank's of the evaluation data, in groups as large as a step, and none without such data; `few_shot()` is the same with
    examples before each row, and None where the document does not ask for it. `finished` counts steps.
    """

    spec: TrainSpec
    world: ProcessGroup
    engine: Any
    objective: Objective
    batches: Callable[[int], Iterator[list[MicroBatch]]]
    evaluation: Callable[[], Iterable[list[MicroBatch]]]
    has_evaluation: bool
    total_steps: int
    checkpoints: Checkpointer
    reporter: Reporter
    stop: PreemptionSignal
    few_shot: Callable[[], Iterable[list[MicroBatch]]] | None = None
    anchor: Regularizer | None = None
    unfreezing: Unfreezing | None = None
    finished: int = 0
    history: History = field(default_factory=History)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the engine."""
        return {"step": self.finished, "history": self.history.state()}

    @property
    def best_first(self) -> list[int]:
        """Evaluated steps from the best to the worst, if the best is to be exported."""
        return early_stopping.best_first(self.history, self.spec.evaluation) if self.spec.export.best else []

    @property
    def exhausted(self) -> str | None:
        """Why the run ends at the step it has come to, if that is not the last one, in one sentence; None if it goes on."""
        if self.history.evaluated != self.finished:
            return None
        return early_stopping.exhausted(self.history, self.spec.evaluation, self.spec.training.early_stopping)


class Agreed(NamedTuple):
    """What all ranks together know before a step."""

    terms: list[float]
    tokens: int
    positions: int
    stop: bool
    save: bool


def train(run: Run) -> None:
    """Train from `run.finished` to the last step, or until it has stopped to improve; at the end a checkpoint is stored.

    Raises Preempted or PreemptedUnsaved when told to stop, NonFiniteLossError, and StorageError if the last checkpoint could
    not be stored.
    """
    with run.stop.deferred():
        saved = run.finished
        batches = run.batches(run.finished)
        run.engine.train()
        while True:
            _evaluate_if_due(run)
            fetching = time.monotonic()
            is_last = run.finished == run.total_steps or run.exhausted is not None
            micro_batches = [] if is_last else next(batches)
            waited = time.monotonic() - fetching
            agreed = _agree(run, micro_batches, saved, is_last)
            if agreed.stop and not is_last:
                _leave_early(run, agreed.save)
            if agreed.save:
                run.checkpoints.save(run.finished, run.state, run.best_first)
                saved = run.finished
            if is_last:
                run.reporter.end(run.finished)
                break
            started = time.monotonic()
            loss, norm, rate = _step(run, micro_batches, agreed.terms, saved)
            del micro_batches  # freed while the next are fetched, tensors hand the interpreter to the thread that makes more
            run.finished += 1
            run.history.add(run.finished, loss, rate)
            run.reporter.step(
                finished=run.finished, loss=loss, gradient_norm=norm, learning_rate=rate, tokens=round(agreed.terms[0]),
                samples=run.spec.training.batch_size, padding=1 - agreed.tokens / max(agreed.positions, 1),
                seconds=waited + time.monotonic() - started, waited=waited,
            )  # fmt: skip
    run.checkpoints.finish()
    run.stop.raise_if_requested()


def _agree(run: Run, micro_batches: list[MicroBatch], saved: int, is_last: bool) -> Agreed:
    """One small reduction in which every rank tells what it is about to compute and what it was asked for."""
    has_news = run.finished > saved
    tokens, positions, stop, due, *terms = run.world.sums(
        sum(batch.tokens for batch in micro_batches),
        sum(batch.positions for batch in micro_batches),
        run.stop.requested,
        has_news and run.checkpoints.due(run.finished),
        *(sum(batch.terms[index] for batch in micro_batches) for index in range(len(run.objective.losses))),
    )
    is_best = run.history.evaluated == run.finished and run.best_first[:1] == [run.finished]
    save = has_news and (due > 0 or stop > 0 or is_last or is_best)
    return Agreed(terms, int(tokens), int(positions), stop > 0, save)


def _step(run: Run, micro_batches: list[MicroBatch], terms: list[float], saved: int) -> tuple[float, float, float]:
    """One optimizer step; returns mean loss, gradient norm and learning rate.

    The gradient is that of (sum of all terms on all ranks) / (their number), added up over the losses. DeepSpeed averages
    gradients over ranks, which the factor undoes; its own division by the number of micro-batches is turned off. A penalty on
    leaving the start counts once; the loss that is returned is without it.
    """
    training, step = run.spec.training, run.finished + 1
    shares = torch.tensor([1 / count if count else 0.0 for count in terms], device=run.world.device)
    total = torch.zeros((), device=run.world.device)
    if run.unfreezing:
        run.unfreezing.begin(step)
    batches = [to_device(batch.inputs, run.world.device) for batch in micro_batches]
    run.objective.prepare_step(run.engine, batches, run.world)
    for index, batch in enumerate(batches):
        is_last = index == len(batches) - 1
        run.engine.set_gradient_accumulation_boundary(is_last)
        loss = (run.objective.loss_sum(run.engine, batch) * shares).sum()
        total += loss.detach()
        if run.anchor and is_last:
            loss = loss + run.anchor.penalty() / run.world.size
        run.engine.backward(loss * run.world.size, scale_wrt_gas=False)
    rate = training.optimizer.learning_rate * lr_schedule.factor(training.schedule, step, run.total_steps)
    norm = take_optimizer_step(run.engine, rate, training.max_gradient_norm)
    mean = run.world.sums(float(total))[0]
    _validate_finite(run, step, mean, norm, saved)
    return mean, norm, rate


def _validate_finite(run: Run, step: int, loss: float, norm: float, saved: int) -> None:
    """Both numbers are the same on all ranks, so that all raise or none does; and it is before anything can be saved."""
    if math.isinf(norm) and math.isfinite(loss) and skips_overflow(run.engine):
        log.warning("step %d: a gradient overflowed; the step is skipped and the loss scale lowered", step)
        return
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = "the loss" if not math.isfinite(loss) else "the gradient norm"
    last = f"the last good checkpoint is of step {saved}" if saved else "there is no checkpoint before it"
    raise NonFiniteLossError(
        f"step {step}: {what} became {loss if not math.isfinite(loss) else norm} ({last}): lower "
        "spec.training.optimizer.learningRate, lengthen spec.training.schedule.warmupSteps, or look for broken rows in the data"
    )


def _evaluate_if_due(run: Run) -> None:
    every = run.spec.evaluation.every_steps
    is_due = run.finished == run.total_steps or bool(run.finished and every and run.finished % every == 0)
    is_due = is_due or (run.finished == 0 and run.spec.evaluation.measures_start)
    if not run.has_evaluation or not is_due or run.history.evaluated == run.finished:
        return

    def go_on() -> bool:
        run.reporter.alive("Evaluating")
        # At the last step there is nothing left to lose, but the result.
        return not run.world.any(run.stop.requested)

    run.reporter.report(Alive(activity="Evaluating"))
    found = evaluate(run.engine, run.objective, run.evaluation(), run.world, go_on)
    if found is not None and run.finished == 0 and run.few_shot is not None:
        shown = evaluate(run.engine, run.objective, run.few_shot(), run.world, go_on)
        found = shown and found.beside(shown)
    if found is not None:
        run.history.add_evaluation(run.finished, *found, best=next(iter(run.best_first), None))
        run.reporter.evaluated(run.finished, found.metrics)
        if run.spec.export.best or run.spec.training.early_stopping:
            early_stopping.validate_metric(run.history, run.spec.evaluation)
    run.reporter.report(Alive(activity="Training"))


def _leave_early(run: Run, save: bool) -> NoReturn:
    failure = None
    try:
        if save:
            run.checkpoints.save(run.finished, run.state, run.best_first)
        run.checkpoints.finish()
    except StorageError as error:
        failure = error
    if run.world.any(failure is not None):
        raise PreemptedUnsaved(
            f"told to stop at step {run.finished}, and its checkpoint could not be stored: {failure or 'another rank says why'}"
        )
    stored = f"the checkpoint of step {run.finished} is stored" if run.finished else "step 0 is where it will begin again"
    raise Preempted(f"told to stop; {stored}")
