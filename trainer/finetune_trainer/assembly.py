"""One rank's way through a run: what is cheap to refuse first, then data, then the model, training, and the export."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetune_trainer import adapters, engine, export, loop, models, objectives, world
from finetune_trainer.config import TrainSpec
from finetune_trainer.data import attention
from finetune_trainer.data.collate import Layout
from finetune_trainer.data.loader import Maker, MicroBatch, Prefetched
from finetune_trainer.data.order import Order, sequential, total_steps
from finetune_trainer.data.prepare import Prepared, prepare
from finetune_trainer.data.reading import Reading
from finetune_trainer.forgetting import anchor
from finetune_trainer.history import History
from finetune_trainer.identity import identity
from finetune_trainer.objectives import Objective
from finetune_trainer.outcome import Outcome, Reason
from finetune_trainer.preflight import checkpoint_storage, insist_on_storage, model_storage
from finetune_trainer.progress import Reporter
from finetune_trainer.stopping import Stop
from finetune_trainer.storage import Credentials, Storage
from finetune_trainer.telemetry import Alive, Report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
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


def run(spec: TrainSpec, place: Place, report: Report, stop: Stop) -> Outcome:
    """From the document to the stored model; raises TrainerError or whatever else went wrong."""
    report(Alive(activity="Preparing"))
    alive = partial(report, Alive(activity="Preparing"))
    engine.accumulation_steps(spec, place.world_size)
    if place.rank == 0:  # it tries for all
        insist_on_storage(spec, place.credentials)
    storage = checkpoint_storage(spec, place.credentials)
    objective, data = _prepare(spec, place, alive)
    here = world.join(
        rank=place.rank, size=place.world_size, local_rank=place.local_rank, processes_per_node=place.processes_per_node,
        master=place.master,
    )  # fmt: skip
    model, layout, precision = _model(spec, place, here, objective)
    report(Alive(activity="Preparing"))
    reading = Reading(spec.objective, place.cache_dir, place.credentials)
    held = anchor(spec, model, objective, layout, lambda: reading.earlier(spec.data), here, alive)
    trained = engine.build(spec, model, here, precision)
    maker = partial(
        Maker, collator=objective, layout=layout, rank=here.rank, size=here.size,
        micro_batch_size=spec.training.micro_batch_size, seed=spec.training.seed,
    )  # fmt: skip
    job = _resume(spec, place, here, trained, storage, report, stop, objective, data, maker)
    job.anchor = held
    report(Alive(activity="Training"))
    loop.train(job)
    address = _export(job, data, place, report)
    # Ranks that have nothing left to do go; only the first has a model to upload, which may take long.
    world.leave()
    progress = job.reporter.progress
    evaluated = {name: value for name, value in job.history.last_metrics.items() if name != "loss"}
    metrics = {"loss": progress.loss, "evalLoss": progress.eval_loss} | evaluated
    return Outcome(
        reason=Reason.COMPLETE,
        message=f"trained {job.finished} steps; the model is at {address}",
        progress=progress,
        metrics={name: value for name, value in metrics.items() if value is not None},
        checkpoint=job.checkpoints.last,
        model=address,
    )


def _prepare(spec: TrainSpec, place: Place, alive: Callable[[], None]) -> tuple[Objective, Prepared]:
    reading = Reading(spec.objective, place.cache_dir, place.credentials)
    tokenizer = models.load_tokenizer(
        spec.model, reading.corpus(spec.data), framed=spec.objective.options.framed, cache=place.cache_dir,
        credentials=place.credentials, alive=alive,
    )  # fmt: skip
    objective = objectives.of(spec, tokenizer)
    return objective, prepare(spec, objective, reading, alive)


def _model(spec: TrainSpec, place: Place, here: world.World, objective: Objective) -> tuple[Any, Layout, engine.Precision]:
    precision = engine.choose_precision(spec, here)
    model = objective.build(
        partial(
            models.load_model, spec.model, dtype=engine.DTYPES[precision], cache=place.cache_dir,
            credentials=place.credentials, seed=spec.training.seed,
        )
    )  # fmt: skip
    models.insist_on_positions(model, spec.data.max_length)
    packed_as = None
    if objective.causal is not None:
        if spec.model.attention == "FlashAttention2":
            model.to(here.device)  # it cannot be examined elsewhere
        packed_as = attention.examine(model, packing=spec.packing, causal=objective.causal)
    objective.start(model, here)
    adapted = adapters.apply(model, spec.method, spec.training.seed, objective.adapter_task)
    return adapted, Layout(packed_as, engine.DTYPES[precision]), precision


def _resume(
    spec: TrainSpec, place: Place, here: world.World, trained: Any, storage: Storage, report: Report, stop: Stop,
    objective: Objective, data: Prepared, maker: Callable[..., Maker],
) -> loop.Run:  # fmt: skip
    # It imports DeepSpeed, which chooses its accelerator right then; `world.join` tells it which.
    from finetune_trainer.checkpoint import Checkpoints

    checkpoints = Checkpoints(
        engine=trained, storage=storage, settings=spec.checkpoint, identity=identity(spec), world=here,
        attempt=place.attempt, work_dir=place.work_dir, report=report,
    )  # fmt: skip
    training = spec.training
    torch.manual_seed(training.seed + here.rank)  # for dropout; a checkpoint brings its own
    state = checkpoints.restore() or {"step": 0, "history": History().state()}
    order = Order(len(data.train), training.batch_size, training.seed)
    total = total_steps(len(data.train), training.batch_size, training.epochs, training.max_steps)
    history = History.of(state["history"])
    reporter = Reporter(
        report, here, total_steps=total, steps_per_epoch=len(data.train) / training.batch_size,
        log_every=training.log_every_steps,
    )  # fmt: skip
    reporter.resume(state["step"], history.training[-1][1] if history.training else None, history.last_metrics.get("loss"))

    def batches(finished: int) -> Iterator[list[MicroBatch]]:
        return Prefetched(maker(data.train), (order.of_step(step) for step in range(finished, total)))

    def evaluation() -> Iterator[list[MicroBatch]]:
        if data.evaluation is None:
            return
        with Prefetched(maker(data.evaluation), sequential(len(data.evaluation), training.batch_size)) as groups:
            yield from groups

    if here.is_first:
        log.info("%d steps of %d rows out of %d, %d already done", total, training.batch_size, len(data.train), state["step"])
    return loop.Run(
        spec=spec, world=here, engine=trained, objective=objective, batches=batches, evaluation=evaluation,
        has_evaluation=data.evaluation is not None, total_steps=total, checkpoints=checkpoints, reporter=reporter, stop=stop,
        finished=state["step"], history=history,
    )  # fmt: skip


def _export(job: loop.Run, data: Prepared, place: Place, report: Report) -> str:
    """Stores the model and then, on the first rank, samples of what it writes; gives the model's address."""
    spec, here = job.spec, job.world
    report(Alive(activity="Exporting"))
    alive = partial(report, Alive(activity="Exporting"))
    target, folder = model_storage(spec, place.credentials), place.work_dir / "model"
    export.save_model(job.engine.module, job.objective, spec, here, folder, alive)
    if not here.is_first:
        return target.uri
    documents = {"data": asdict(data.report), "document": spec.document(), "metrics": job.history.last_metrics}
    export.save_reports(folder, job.history, documents)
    job.history.write(place.work_dir)
    export.upload(folder, target, alive)
    if spec.evaluation.generation:
        alive()
        taken = export.take_samples(folder, job.objective, spec.evaluation.generation, job.engine.module)
        target.put(f"{export.REPORTS}/samples.json", json.dumps(taken, indent=2, ensure_ascii=False).encode() + b"\n")
    return target.uri
