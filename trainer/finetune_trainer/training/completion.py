"""The outcome of a run whose model is stored, by this process or before it."""

from __future__ import annotations

from finetune_trainer.protocol.outcome import DataSummary, Outcome, Reason
from finetune_trainer.training.loop import TrainingLoop


def completed(
    loop: TrainingLoop, exported_step: int, model_uri: str, resumed: str | None, data: DataSummary
) -> Outcome:  # fmt: skip
    """The outcome of a finished run; `resumed` is a sentence on how it went on from a checkpoint."""
    progress = loop.reporter.progress
    early_stop = f" and stopped early: {loop.early_stop_reason}" if loop.early_stop_reason else ""
    model = "the model" if exported_step == loop.state.step else f"the best model, from step {exported_step},"
    evaluation = dict(loop.state.history.evaluation_at(exported_step).metrics)
    metrics = {"loss": progress.loss, "evalLoss": evaluation.pop("loss", None), **evaluation}
    return Outcome(
        reason=Reason.COMPLETE,
        message=f"trained {loop.state.step} steps{early_stop}; {model} is at {model_uri}",
        progress=progress,
        metrics={name: value for name, value in metrics.items() if value is not None},
        checkpoint=loop.checkpoints.last,
        model=model_uri,
        resumed=resumed,
        data=data,
    )
