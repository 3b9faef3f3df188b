"""One rank's way through a run: what is cheap to refuse first, then data, then the model, training, and the export."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetune_trainer import methods, objectives
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.dataloader import BatchBuilder, MicroBatch, PrefetchLoader
from finetune_trainer.data.loading.dataset import ArrowDataset
from finetune_trainer.data.loading.sampler import Sampler, sequential, total_steps
from finetune_trainer.data.preprocessing.consistency import validate_same_rows
from finetune_trainer.data.preprocessing.prepare import Prepared, prepare
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.distributed import process_group
from finetune_trainer.distributed.preemption import PreemptionSignal
from finetune_trainer.export import model as export
from finetune_trainer.export import reports as reports
from finetune_trainer.methods.progressive import load_frozen_adapters
from finetune_trainer.methods.unfreezing import gradually
from finetune_trainer.models import loading, packing_support, processors
from finetune_trainer.objectives import Objective
from finetune_trainer.protocol.events import Alive, DataFound, EventSink
from finetune_trainer.protocol.outcome import Outcome, Reason
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.storage.download import localize
from finetune_trainer.tracking.history import History
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.tracking.tensorboard import recording
from finetune_trainer.training import engine, loop
from finetune_trainer.training.preflight import checkpoint_storage, model_storage, validate_storage
from finetune_trainer.training.regularization import build_regularizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LaunchContext:
    """What the agent told this rank when it started it; `master` is HOST:PORT of rank 0."""

    rank: int
    world_size: int
    local_rank: int
    processes_per_node: int
    master: str
    attempt: str
    work_dir: Path
    cache_dir: Path
    credentials: Credentials


def run(spec: TrainSpec, place: LaunchContext, report: EventSink, stop: PreemptionSignal) -> Outcome:
    """From the document to the stored model; raises TrainerError or whatever else went wrong."""
    report(Alive(activity="Preparing"))
    engine.accumulation_steps(spec, place.world_size)
    methods.lora.require_libraries(spec)
    detector_for(spec.data.checks)
    storage = checkpoint_storage(spec, place.credentials)
    if place.rank > 0:
        return _run(spec, place, storage, report, stop)
    validate_storage(spec, place.credentials)  # the first rank tries for all
    with recording(report, storage, place.work_dir) as recorded:
        return _run(spec, place, storage, recorded, stop)


def _far(report: EventSink, detail: str, share: float | None) -> None:
    report(Alive(activity="Preparing", detail=detail, share=share))


def _run(spec: TrainSpec, place: LaunchContext, storage: Storage, report: EventSink, stop: PreemptionSignal) -> Outcome:
    alive = partial(report, Alive(activity="Preparing"))
    process_group.choose_device(place.local_rank)  # data may be prepared with models of its own
    reading = SourceResolver(spec.objective, place.cache_dir, place.credentials)
    objective = objectives.of(spec, processors.load(spec, reading, alive))
    data = prepare(spec, objective, reading, alive, partial(_far, report))
    if place.rank == 0:
        _tell_of(data, report)
    here = process_group.join(
        rank=place.rank, size=place.world_size, local_rank=place.local_rank, processes_per_node=place.processes_per_node,
        master=place.master,
    )  # fmt: skip
    validate_same_rows(data.report, here)
    model, layout, precision = _model(spec, place, here, objective)
    alive()
    held = build_regularizer(spec, model, objective, layout, lambda: reading.replay(spec.data), here, alive)
    trained = engine.build(spec, model, here, precision)
    maker = partial(
        BatchBuilder, collator=objective, rank=here.rank, size=here.size,
        micro_batch_size=spec.training.micro_batch_size, seed=spec.training.seed,
    )  # fmt: skip
    job = _resume(spec, place, here, trained, storage, report, stop, objective, data, layout, maker)
    job.anchor, job.unfreezing = held, gradually(spec, trained)
    report(Alive(activity="Training"))
    loop.train(job)
    report(Alive(activity="Exporting"))
    chosen = _choose(job)
    address = _export(job, chosen, data, place, report)
    # Ranks that have nothing left to do go; only the first has a model to upload, which may take long.
    process_group.leave()
    progress = job.reporter.progress
    evaluated = dict(job.history.of_step(chosen).metrics)
    metrics = {"loss": progress.loss, "evalLoss": evaluated.pop("loss", None)} | evaluated
    return Outcome(
        reason=Reason.COMPLETE,
        message=_last_word(job, chosen, address),
        progress=progress,
        metrics={name: value for name, value in metrics.items() if value is not None},
        checkpoint=job.checkpoints.last,
        model=address,
    )


def _tell_of(data: Prepared, report: EventSink) -> None:
    for line in data.report.lines():
        log.info("%s", line)
    report(DataFound(data=data.report.summary))


def _model(
    spec: TrainSpec, place: LaunchContext, here: process_group.ProcessGroup, objective: Objective
) -> tuple[Any, Layout, engine.Precision]:
    precision = engine.choose_precision(spec, here)
    model = objective.build(
        partial(
            loading.load_model, spec.model, dtype=engine.DTYPES[precision], cache=place.cache_dir,
            credentials=place.credentials, seed=spec.training.seed,
        )
    )  # fmt: skip
    if spec.objective.config.processor == "Tokenizer":
        loading.validate_positions(model, objective.lengths, spec.method.config.prefix)
    if spec.model.attention == "FlashAttention2":
        model.to(here.device)  # it cannot be examined elsewhere
    packed_as = None
    if objective.causal is not None:
        packed_as = packing_support.examine(model, packing=spec.packing, causal=objective.causal)
    objective.start(model, here)
    learner = methods.apply(model, spec, objective)
    load_frozen_adapters(learner, spec, lambda uri, secret, field: localize(
        uri, cache=place.cache_dir, credentials=place.credentials, secret=secret, field=field
    ))  # fmt: skip
    return learner, Layout(packed_as, engine.DTYPES[precision]), precision


def _resume(
    spec: TrainSpec, place: LaunchContext, here: process_group.ProcessGroup, trained: Any, storage: Storage, report: EventSink,
    stop: PreemptionSignal, objective: Objective, data: Prepared, layout: Layout, maker: Callable[..., BatchBuilder],
) -> loop.Run:  # fmt: skip
    # It imports DeepSpeed, which chooses its accelerator right then; `world.join` tells it which.
    from finetune_trainer.checkpoint.manager import CheckpointManager

    checkpoints = CheckpointManager(
        engine=trained, storage=storage, settings=spec.checkpoint, identity=identity(spec), world=here,
        attempt=place.attempt, work_dir=place.work_dir, report=report,
    )  # fmt: skip
    training = spec.training
    torch.manual_seed(training.seed + here.rank)  # for dropout; a checkpoint brings its own
    state = checkpoints.restore() or {"step": 0, "history": History().state()}
    order = Sampler(data.epoch, training.batch_size, training.seed, data.mixture)
    total = total_steps(data.epoch, training.batch_size, training.epochs, training.max_steps)
    history = History.of(state["history"])
    reporter = Reporter(
        report, here, total_steps=total, steps_per_epoch=data.epoch / training.batch_size,
        log_every=training.log_every_steps,
    )  # fmt: skip
    reporter.resume(state["step"], history.training[-1][1] if history.training else None, history.last_metrics.get("loss"))

    def batches(finished: int) -> Iterator[list[MicroBatch]]:
        return PrefetchLoader(
            maker(data.train, layout=layout._replace(training=True)),
            map(order.indices_for_step, range(finished, total)),
        )

    def groups(rows: ArrowDataset | None) -> Iterator[list[MicroBatch]]:
        if rows is None:
            return
        with PrefetchLoader(maker(rows, layout=layout), sequential(len(rows), training.batch_size)) as found:
            yield from found

    if here.is_first:
        log.info("%d steps of %d rows out of %d, %d already done", total, training.batch_size, len(data.train), state["step"])
    return loop.Run(
        spec=spec, world=here, engine=trained, objective=objective, batches=batches,
        evaluation=partial(groups, data.evaluation), few_shot=partial(groups, data.few_shot) if data.few_shot else None,
        has_evaluation=data.evaluation is not None, total_steps=total, checkpoints=checkpoints, reporter=reporter, stop=stop,
        finished=state["step"], history=history,
    )  # fmt: skip


def _choose(job: loop.Run) -> int:
    """Brings the best model back, if it is to be exported and is not the last; the step of the one that will be exported."""
    better = list(itertools.takewhile(lambda step: step != job.finished, job.best_first))
    chosen = (job.checkpoints.load_best(better) if better else None) or job.finished
    if better and chosen != better[0]:
        log.warning("the model of step %d was better, but its checkpoint is not there: step %d is exported", better[0], chosen)
    return chosen


def _last_word(job: loop.Run, chosen: int, address: str) -> str:
    ended = f", as {job.exhausted}" if job.exhausted else ""
    which = "the model" if chosen == job.finished else f"the best model, that of step {chosen},"
    return f"trained {job.finished} steps{ended}; {which} is at {address}"


def _report(job: loop.Run, chosen: int, data: dict[str, Any], folder: Path) -> None:
    """Writes what the export tells of the run, and its model card."""
    fit, measured = reports.diagnose(job.history), job.history.of_step(chosen)
    log.info("%s", fit.sentence)
    report = {
        "steps": job.finished, "plannedSteps": job.total_steps, "stoppedEarly": job.exhausted, "exportedStep": chosen,
        "fit": fit._asdict(), "start": job.history.of_step(0).metrics,
    }  # fmt: skip
    documents = {
        "data": data, "document": job.spec.document(), "facts": job.objective.facts, "metrics": measured.metrics,
        "report": report,
    }  # fmt: skip
    below = folder / reports.REPORTS
    reports.write_curves(below, job.history)
    reports.write_documents(below, documents | measured.tables)
    for part, member in job.objective.members().items():
        # What a folder says of its run, predict reads: that of a task must be there as well.
        if part:
            reports.write_documents(
                folder / part / reports.REPORTS, {"document": member.spec.document(), "facts": member.facts}
            )
    reports.write_card(folder, job.spec, job.objective, documents, below)


def _export(job: loop.Run, chosen: int, data: Prepared, place: LaunchContext, report: EventSink) -> str:
    """Stores the model and then, on the first rank, samples of what it writes; gives the model's address."""
    spec, here = job.spec, job.world
    alive = partial(report, Alive(activity="Exporting"))
    target, folder = model_storage(spec, place.credentials), place.work_dir / "model"
    export.save_model(job.engine.module, job.objective, spec, here, folder, alive)
    if not here.is_first:
        return target.uri
    _report(job, chosen, data.report.document(), folder)
    export.upload(folder, target, alive)
    if spec.evaluation.generation:
        alive()
        taken = export.take_samples(folder, job.objective, spec.evaluation.generation, job.engine.module)
        target.put(f"{reports.REPORTS}/samples.json", json.dumps(taken, indent=2, ensure_ascii=False).encode() + b"\n")
    return target.uri
