"""The training loop: fetch micro-batches, agree with the other ranks, take a step, report it.

All ranks branch alike: everything that decides the branch (a stop request, a checkpoint that is due by the clock, a loss that
is not finite) is summed over the ranks first.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Protocol

from finetune_trainer.config import EvaluationConfig, TrainingConfig
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed.preemption import Preempted, PreemptedUnsaved, PreemptionSignal
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol.events import Alive
from finetune_trainer.protocol.outcome import SavedCheckpoint, StorageError
from finetune_trainer.tracking import early_stopping
from finetune_trainer.tracking.reporter import FinishedStep, Reporter
from finetune_trainer.tracking.stragglers import StragglerDetector
from finetune_trainer.training.batches import BatchSource
from finetune_trainer.training.evaluation import Evaluator
from finetune_trainer.training.loss_anomaly import Anomaly, failure, is_limit_reached
from finetune_trainer.training.suspects import describe_rows
from finetune_trainer.training.train_state import TrainState
from finetune_trainer.training.train_step import StepResult, TrainStep

log = logging.getLogger(__name__)


class Checkpoints(Protocol):
    """The part of `finetune_trainer.checkpoint.manager.CheckpointManager` that training uses."""

    @property
    def last(self) -> SavedCheckpoint | None: ...

    def is_due(self, step: int, /) -> bool: ...

    def save(self, step: int, client_state: dict[str, Any], best_steps: Sequence[int] = (), /) -> None: ...

    def load_best(self, best_steps: Sequence[int], /) -> int | None: ...

    def restore(self) -> dict[str, Any] | None: ...

    def finish(self) -> None: ...


class StepAgreement(NamedTuple):
    """What all ranks agreed on before a step; the counts are sums over the ranks."""

    term_counts: list[float]
    """The number of terms in each loss."""
    tokens: int
    positions: int
    """Tokens and padding."""
    stop: bool
    save: bool
    rank_seconds: list[float]
    """The seconds that each rank's own work in the previous step took; zeros before there is one."""


@dataclass
class TrainingLoop:
    """Trains from `state.step` to `total_steps`, or until the run stops early."""

    training: TrainingConfig
    evaluation: EvaluationConfig
    export_best: bool
    group: ProcessGroup
    train_step: TrainStep
    evaluator: Evaluator
    batches: BatchSource
    checkpoints: Checkpoints
    reporter: Reporter
    stop: PreemptionSignal
    total_steps: int
    state: TrainState = field(default_factory=TrainState)
    _training_batches: Iterator[list[MicroBatch]] = field(init=False)
    _saved_step: int = field(init=False, default=0)
    _own_seconds: float = field(init=False, default=0.0)
    _step_seconds: float = field(init=False, default=0.0)
    _stragglers: StragglerDetector = field(init=False)

    def __post_init__(self) -> None:
        self._stragglers = StragglerDetector(self.group.processes_per_node)

    @property
    def ranked_steps(self) -> list[int]:
        """Evaluated steps from the best to the worst; empty unless the best model is exported."""
        return early_stopping.rank_steps(self.state.history, self.evaluation) if self.export_best else []

    @property
    def early_stop_reason(self) -> str | None:
        """One sentence on why the run stops at the current step before the last one; None if it continues."""
        if not self._is_evaluated:
            return None
        return early_stopping.early_stop_reason(self.state.history, self.evaluation, self.training.early_stopping)

    @property
    def _is_evaluated(self) -> bool:
        return self.state.history.last_evaluated_step == self.state.step

    def run(self) -> None:
        """Train to the last step and store a checkpoint of it.

        Raises Preempted or PreemptedUnsaved if a stop was requested, NonFiniteLossError, LossSpikeError, and StorageError if
        the last checkpoint could not be stored.
        """
        with self.stop.deferred():
            self._saved_step = self.state.step
            self._training_batches = self._batches_from_here()
            if self.state.anomalies.total.message:
                self.reporter.loss_anomaly_found(self.state.step, self.state.anomalies.total)
            self.train_step.engine.train()
            while True:
                self._evaluate_if_due()
                fetch_started = time.monotonic()
                is_last = self.state.step == self.total_steps or self.early_stop_reason is not None
                micro_batches = [] if is_last else next(self._training_batches)
                data_wait_seconds = time.monotonic() - fetch_started
                agreement = self._agree(micro_batches, is_last)
                self._watch_stragglers(agreement.rank_seconds)
                if agreement.stop and not is_last:
                    self._stop(agreement.save)
                if agreement.save:
                    self._save()
                if is_last:
                    self.reporter.finish(self.state.step)
                    break
                self._take_step(micro_batches, agreement, data_wait_seconds)
                # Tensors are freed here, while the next are fetched: freeing them releases the interpreter lock for the thread
                # that makes the next ones.
                del micro_batches
        self.reporter.report(Alive(activity="Saving"))
        self.checkpoints.finish()
        evaluates = "evaluates it and " if self._is_evaluation_due() else ""
        self.stop.situation = (
            f"after the last step, {self.state.step}, whose checkpoint is stored; the next run {evaluates}exports the model"
        )
        self.stop.raise_if_requested()

    def _agree(self, micro_batches: list[MicroBatch], is_last: bool) -> StepAgreement:
        """All-reduce token counts, term counts, the stop and save flags and the ranks' times in one small reduction."""
        has_unsaved_step = self.state.step > self._saved_step
        own_term_counts = self.train_step.count_terms(micro_batches)
        rank_seconds = [0.0] * self.group.size
        rank_seconds[self.group.rank] = self._own_seconds
        tokens, positions, stop, due, *sums = self.group.sums(
            sum(micro_batch.tokens for micro_batch in micro_batches),
            sum(micro_batch.positions for micro_batch in micro_batches),
            self.stop.requested,
            has_unsaved_step and self.checkpoints.is_due(self.state.step),
            *own_term_counts,
            *rank_seconds,
        )
        term_counts, rank_seconds = sums[: len(own_term_counts)], sums[len(own_term_counts) :]
        is_best = self._is_evaluated and self.ranked_steps[:1] == [self.state.step]
        save = has_unsaved_step and (due > 0 or stop > 0 or is_last or is_best)
        return StepAgreement(term_counts, int(tokens), int(positions), stop > 0, save, rank_seconds)

    def _watch_stragglers(self, rank_seconds: list[float]) -> None:
        """Report ranks that are slower than the others, as far as the times of the previous step change that."""
        if not self.group.is_first or not all(rank_seconds):
            return
        stragglers = self._stragglers.observe(rank_seconds, self._step_seconds)
        if stragglers is not None:
            self.reporter.stragglers_found(stragglers)

    def _take_step(self, micro_batches: list[MicroBatch], agreement: StepAgreement, data_wait_seconds: float) -> None:
        """Take the next optimizer step and report it, or do what the document says about an anomaly."""
        started = time.monotonic()
        step = self.state.step + 1
        result = self.train_step.run(step, micro_batches, agreement.term_counts, self.state.anomalies)
        if result.anomaly:
            self._handle_anomaly(step, result.anomaly, self._describe_anomaly(step, result, micro_batches, agreement))
            return
        self.state.step = step
        self.state.anomalies.add_loss(result.loss, self.training.loss_anomaly)
        self.state.history.add(step, result.loss, result.learning_rate)
        seconds = data_wait_seconds + time.monotonic() - started
        self._own_seconds, self._step_seconds = data_wait_seconds + result.forward_seconds, seconds
        self.reporter.step_finished(
            FinishedStep(
                step=step,
                loss=result.loss,
                gradient_norm=result.gradient_norm,
                learning_rate=result.learning_rate,
                tokens=round(agreement.term_counts[0]),
                samples=self.training.batch_size,
                padding_ratio=1 - agreement.tokens / max(agreement.positions, 1),
                seconds=seconds,
                data_wait_seconds=data_wait_seconds,
                forward_seconds=result.forward_seconds,
            )
        )

    def _describe_anomaly(
        self, step: int, result: StepResult, micro_batches: list[MicroBatch], agreement: StepAgreement
    ) -> str:  # fmt: skip
        assert result.anomaly is not None, "there is something to describe"
        losses = [float(contribution) for contribution in result.contributions]
        shares = self.train_step.shares_of_terms(micro_batches, agreement.term_counts)
        rows = describe_rows(self.group, micro_batches, losses, shares, self.batches.origins)
        return f"step {step}: {result.anomaly.problem} {rows}".rstrip()

    def _handle_anomaly(self, step: int, anomaly: Anomaly, message: str) -> None:
        """Skip the step, whose gradient was not used, or return to the newest checkpoint.

        Raises NonFiniteLossError or LossSpikeError if the document allows neither, or not once more.
        """
        config, state = self.training.loss_anomaly, self.state
        saved_step = self._saved_step
        if config.action == "RollBack":
            self._finish_saving()
            saved_step = self.checkpoints.last.step if self.checkpoints.last else 0
        is_possible = config.action == "SkipStep" or (config.action == "RollBack" and saved_step > 0)
        if not is_possible or is_limit_reached(state.anomalies, config, saved_step):
            raise failure(message, anomaly, saved_step, config)
        if config.action == "SkipStep":
            message = f"{message}; the step was skipped"
            state.anomalies.skip_step(message)
            state.step = step
        else:
            restored = self.checkpoints.restore()
            assert restored is not None, "there was a checkpoint"
            before, self.state = state, TrainState.from_dict(restored)
            state, self._saved_step = self.state, self.state.step
            message = f"{message}; the run returned to step {state.step} and leaves out the batches since then"
            state.anomalies = before.anomalies.roll_back(state.anomalies, state.step, step, message)
            self._training_batches = self._batches_from_here()
            self.reporter.report(Alive(activity="Training"))
        state.history.add_anomaly(state.step, message)
        self.reporter.loss_anomaly_found(state.step, state.anomalies.total)

    def _batches_from_here(self) -> Iterator[list[MicroBatch]]:
        return self.batches.training(self.state.step, self.state.anomalies.skipped_batches)

    def _finish_saving(self) -> None:
        """Wait for the checkpoint that is being stored; one that cannot be stored leaves the one before it."""
        self.reporter.report(Alive(activity="Saving"))
        with contextlib.suppress(StorageError):  # raised on all ranks, and reported
            self.checkpoints.finish()

    def _save(self) -> None:
        self.checkpoints.save(self.state.step, self.state.to_dict(), self.ranked_steps)
        self._saved_step = self.state.step

    def _is_evaluation_due(self) -> bool:
        if not self.evaluator.has_data or self._is_evaluated:
            return False
        step, every_steps = self.state.step, self.evaluation.every_steps
        if step == self.total_steps:
            return True
        if step == 0:
            return self.evaluation.measures_start
        return every_steps is not None and step % every_steps == 0

    def _evaluate_if_due(self) -> None:
        if not self._is_evaluation_due():
            return
        self.reporter.report(Alive(activity="Evaluating"))
        if self.state.step == 0:
            result = self.evaluator.evaluate_start(self._should_continue_evaluation)
        else:
            result = self.evaluator.evaluate(self._should_continue_evaluation)
        if result is not None:
            best_step = next(iter(self.ranked_steps), None)
            self.state.history.add_evaluation(self.state.step, result.metrics, result.tables, best_step)
            self.reporter.evaluation_finished(self.state.step, result.metrics)
            if self.export_best or self.training.early_stopping:
                early_stopping.validate_metric(self.state.history, self.evaluation)
        self.reporter.report(Alive(activity="Training"))

    def _should_continue_evaluation(self) -> bool:
        """Whether no rank was asked to stop. At the last step this loses the evaluation result and nothing else."""
        return not self.group.any(self.stop.requested)

    def _stop(self, save: bool) -> NoReturn:
        """End the run before its last step, after storing a checkpoint if there is an unsaved step."""
        failure: StorageError | None = None
        try:
            if save:
                self._save()
            self.reporter.report(Alive(activity="Saving"))
            self.checkpoints.finish()
        except StorageError as error:
            failure = error
        step = self.state.step
        if self.group.any(failure is not None):
            reason = failure or "see the log of another rank"
            raise PreemptedUnsaved(f"stopped at step {step}, and its checkpoint could not be stored: {reason}")
        is_evaluated, during_evaluation = "", ""
        if self._is_evaluation_due():
            is_evaluated, during_evaluation = "; the next run evaluates it again", " during its evaluation"
        stored = "its checkpoint is stored" if step else "there is nothing to store"
        raise Preempted(f"stopped at step {step}{during_evaluation}; {stored}{is_evaluated}")
