"""The Prometheus metrics of a trainer pod, each declared once, in base units. A step is a value, never a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from finetune_trainer.protocol.events import (
    CheckpointFailed,
    CheckpointStored,
    Evaluated,
    Event,
    LossAnomalyFound,
    Step,
    StepTime,
    StragglersFound,
)

STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)
CHECKPOINT_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
JOB = ("namespace", "job")


class Metrics:
    """All metrics of one agent, updated by the events of its ranks. A metric appears with its first value."""

    def __init__(self, namespace: str, job: str) -> None:
        self.registry = CollectorRegistry()
        self._job = (namespace, job)
        self._declare_gauges()
        self._declare_counters()
        self._declare_histograms()
        self.restarts.labels(*self._job)
        self.checkpoint_failures.labels(*self._job)

    def _declare_gauges(self) -> None:
        self.loss = self._gauge("loss", "Mean loss per token of the last step, over all ranks (nats).")
        self.eval_loss = self._gauge("eval_loss", "Mean loss per token on the evaluation data (nats).")
        self.eval_metric = self._gauge(
            "eval_metric", "A metric of the objective on the evaluation data, in the metric's unit.", "metric"
        )
        self.learning_rate = self._gauge("learning_rate", "Learning rate of the last step (1).")
        self.gradient_norm = self._gauge("grad_norm", "L2 norm of the gradient before clipping (1).")
        self.step = self._gauge("step", "Completed optimizer steps (1).")
        self.total_steps = self._gauge("total_steps", "Optimizer steps of the whole run (1).")
        self.epoch = self._gauge("epoch", "Passes over the training data so far (1).")
        self.padding_ratio = self._gauge("padding_ratio", "Share of padding in the token positions of the last step (0-1).")
        self.step_compute = self._gauge(
            "step_compute_seconds",
            "Time of a rank's own work in a step of the last event: waiting for data, and forward passes (seconds).",
            "rank",
        )
        self.straggler_ratio = self._gauge(
            "straggler_ratio",
            "Time of a straggler's own work in a step, relative to the median of the other ranks (1); only for stragglers.",
            "rank",
        )
        self.skipped_steps = self._gauge(
            "skipped_steps", "Steps of the run that did not change the weights because of an anomaly of the loss (1)."
        )
        self.roll_backs = self._gauge("roll_backs", "Returns of the run to a checkpoint because of an anomaly of the loss (1).")
        self.checkpoint_size = self._gauge("checkpoint_bytes", "Size of the newest checkpoint (bytes).")
        self.checkpoint_time = self._gauge(
            "last_checkpoint_timestamp_seconds", "When the newest checkpoint was committed (seconds since 1970)."
        )

    def _declare_counters(self) -> None:
        self.tokens = self._counter("tokens", "Training tokens; steps repeated after a restart count again (tokens).")
        self.samples = self._counter("samples", "Training sequences; steps repeated after a restart count again (sequences).")
        self.data_wait = self._counter("data_wait_seconds", "Time that the ranks of this node waited for data (rank-seconds).")
        self.checkpoint_stall = self._counter(
            "checkpoint_stall_seconds", "Time that snapshots of checkpoints blocked training (seconds)."
        )
        self.checkpoint_failures = self._counter("checkpoint_failures", "Checkpoints that could not be stored (1).")
        self.restarts = self._counter("in_place_restarts", "Restarts of this node's ranks without a new pod (1).")

    def _declare_histograms(self) -> None:
        self.step_duration = self._histogram(
            "step_duration_seconds", "Duration of one optimizer step of a rank (seconds).", STEP_BUCKETS, "rank"
        )
        self.checkpoint_duration = self._histogram(
            "checkpoint_duration_seconds",
            "Duration of one phase of a checkpoint: snapshot, write or upload (seconds).",
            CHECKPOINT_BUCKETS,
            "phase",
        )

    def count_restart(self) -> None:
        """Count a restart of this node's ranks."""
        self.restarts.labels(*self._job).inc()

    def observe(self, rank: int, event: Event, now: float) -> None:
        """Update the metrics by one event of a rank; `now` is the time in seconds since 1970."""
        match event:
            case Step():
                self._observe_step(event)
            case StepTime():
                for _ in range(event.steps):  # one event may cover several fast steps: each counts as their mean
                    self.step_duration.labels(*self._job, rank).observe(event.seconds / event.steps)
                self.data_wait.labels(*self._job).inc(event.data_wait_seconds)
                if event.forward_seconds is not None:
                    own_seconds = event.data_wait_seconds + event.forward_seconds
                    self.step_compute.labels(*self._job, rank).set(own_seconds / event.steps)
            case StragglersFound():
                self.straggler_ratio.clear()
                for straggler in event.stragglers:
                    self.straggler_ratio.labels(*self._job, straggler.rank).set(straggler.ratio)
            case LossAnomalyFound():
                self.skipped_steps.labels(*self._job).set(event.anomalies.skipped_steps)
                self.roll_backs.labels(*self._job).set(event.anomalies.roll_backs)
            case Evaluated():
                self._observe_evaluation(event)
            case CheckpointStored():
                self._observe_checkpoint(event, now)
            case CheckpointFailed():
                self.checkpoint_failures.labels(*self._job).inc()
            case _:
                pass

    def _observe_step(self, event: Step) -> None:
        progress = event.progress
        gauges = (
            (self.loss, progress.loss),
            (self.learning_rate, progress.learning_rate),
            (self.gradient_norm, event.gradient_norm),
            (self.step, progress.step),
            (self.total_steps, progress.total_steps),
            (self.epoch, progress.epoch),
            (self.padding_ratio, event.padding_ratio),
        )
        for gauge, value in gauges:
            if value is not None:
                gauge.labels(*self._job).set(value)
        self.tokens.labels(*self._job).inc(event.tokens)
        self.samples.labels(*self._job).inc(event.samples)

    def _observe_evaluation(self, event: Evaluated) -> None:
        for name, value in event.metrics.items():
            if name == "loss":
                self.eval_loss.labels(*self._job).set(value)
            else:
                self.eval_metric.labels(*self._job, name).set(value)

    def _observe_checkpoint(self, event: CheckpointStored, now: float) -> None:
        self.checkpoint_size.labels(*self._job).set(event.size_bytes)
        self.checkpoint_time.labels(*self._job).set(now)
        for phase, seconds in event.seconds.items():
            self.checkpoint_duration.labels(*self._job, phase).observe(seconds)
        self.checkpoint_stall.labels(*self._job).inc(event.seconds.get("snapshot", 0.0))

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"finetune_{name}", help_text, (*JOB, *labels), registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"finetune_{name}", help_text, (*JOB, *labels), registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"finetune_{name}", help_text, (*JOB, *labels), registry=self.registry, buckets=buckets)
