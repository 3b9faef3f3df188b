"""What a rank does in the tests of loop, adapters, evaluation and export: real engines, rows made up beforehand."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tests.support import tiny
from tests.support.ranks import Place

from finetune_trainer import methods, objectives
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import TrainSpec
from finetune_trainer.data.loading.dataloader import MicroBatch
from finetune_trainer.distributed import process_group
from finetune_trainer.distributed.preemption import Preempted, PreemptionSignal
from finetune_trainer.export import model as export
from finetune_trainer.export import weights
from finetune_trainer.methods.unfreezing import gradually
from finetune_trainer.protocol.events import Event
from finetune_trainer.protocol.outcome import NonFiniteLossError, SavedCheckpoint
from finetune_trainer.storage.base import Credentials, Storage
from finetune_trainer.tracking.history import History
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.training import engine, evaluation, loop


@contextlib.contextmanager
def joined(place: Place) -> Iterator[process_group.ProcessGroup]:
    """The process group, from joining to leaving it."""
    yield process_group.join(
        rank=place.rank, size=place.size, local_rank=place.rank, processes_per_node=place.size, master=place.master
    )
    process_group.leave()


ROWS = {"CausalLM": tiny.rows, "SequenceClassification": tiny.labelled}


def objective_of(spec: TrainSpec) -> objectives.Objective:
    """The document's objective, which knows its labels."""
    objective = objectives.of(spec, tiny.tokenizer())
    objective.set_statistics({"labels": [str(label) for label in range(tiny.LABELS)]})
    return objective


@dataclass
class Kept:
    """Stands in for the checkpoints, which have tests of their own: what was saved, and when."""

    every: int = 1000
    saved: list[int] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    last: SavedCheckpoint | None = None

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def save(self, step: int, client_state: dict[str, Any], best_first: Sequence[int] = ()) -> None:
        self.saved.append(step)
        self.states.append(client_state)

    def load_best(self, best_first: Sequence[int]) -> int | None:
        return None

    def finish(self) -> None:
        pass


def run_of(here: process_group.ProcessGroup, spec: TrainSpec, model: Any, **changes: Any) -> tuple[loop.Run, Kept, list[Event]]:
    """A run over rows that depend on the step's number alone, dealt to the ranks in order."""
    total, size, micro = spec.training.max_steps or 1, spec.training.batch_size, spec.training.micro_batch_size
    share = size // here.size
    objective = objective_of(spec)

    def batches(finished: int) -> Iterator[list[MicroBatch]]:
        for step in range(finished + 1, total + 1):
            rows = ROWS[spec.objective.type](size, seed=step)
            mine = range(here.rank * share, (here.rank + 1) * share, micro)
            yield [tiny.micro(tiny.part(rows, begin, begin + micro), objective) for begin in mine]

    events: list[Event] = []
    kept = Kept()
    built = engine.build(spec, model, here, engine.choose_precision(spec, here))
    settings: dict[str, Any] = {
        "engine": built,
        "unfreezing": gradually(spec, built),
        "objective": objective,
        "batches": batches,
        "evaluation": list,
        "has_evaluation": False,
        "total_steps": total,
        "checkpoints": kept,
        "reporter": Reporter(events.append, here, total_steps=total, steps_per_epoch=2.5, log_every=1),
        "stop": PreemptionSignal(),
    }
    return loop.Run(spec=spec, world=here, **(settings | changes)), kept, events


def curves(place: Place, model_name: str, cases: list[dict[str, Any]]) -> list[list[tuple[float, float]]]:
    """(loss, gradient norm) of each step, for each case of changes to the document."""
    results = []
    with joined(place) as here:
        for changes in cases:
            run, _, events = run_of(here, tiny.spec(**changes), getattr(tiny, model_name)())
            loop.train(run)
            results.append([(e.progress.loss, e.gradient_norm) for e in events if e.event == "step"])
    return results


def movements(place: Place, cases: list[dict[str, Any]]) -> list[tuple[list[tuple[float, float]], list[set[str]]]]:
    """For each case of a Llama the same curve, and the names of the weights that each step changed."""
    results = []
    with joined(place) as here:
        for changes in cases:
            spec = tiny.spec(**changes)
            run, _, events = run_of(here, spec, methods.apply(tiny.llama(), spec, objective_of(spec)))
            original, seen = run.batches, []

            def watched(finished: int) -> Iterator[list[MicroBatch]]:
                for batches in original(finished):  # noqa: B023  # it is used up within the pass
                    seen.append(weights.whole_model(run.engine.module, here, lambda: None))  # noqa: B023
                    yield batches

            run.batches = watched
            loop.train(run)
            seen.append(weights.whole_model(run.engine.module, here, lambda: None))
            moved = [
                {name for name, weight in after.items() if not torch.equal(weight, before[name])}
                for before, after in itertools.pairwise(seen)
            ]
            results.append(([(e.progress.loss, e.gradient_norm) for e in events if e.event == "step"], moved))
    return results


def reference(model: Any, spec: TrainSpec, rates: list[float]) -> list[tuple[float, float]]:
    """The same curve by plain torch: one process, the whole batch at once, transformers' own loss."""
    settings = spec.training.optimizer
    optimizer = torch.optim.AdamW(
        engine.parameter_groups(model, settings.weight_decay), betas=(settings.beta1, settings.beta2), eps=settings.epsilon
    )
    points = []
    for step, rate in enumerate(rates, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(**tiny.rows(spec.training.batch_size, seed=step)).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.training.max_gradient_norm)
        optimizer.step()
        points.append((loss.item(), norm.item()))
    return points


def diverge(place: Place, cases: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """The sentence a run ended with and what it had saved by then, for each case."""
    results = []
    with joined(place) as here:
        for changes in cases:
            run, kept, _ = run_of(here, tiny.spec(**changes), tiny.llama())
            kept.every = 2
            try:
                loop.train(run)
                results.append(("", kept.saved))
            except NonFiniteLossError as error:
                results.append((str(error), kept.saved))
    return results


def stop_and_resume(place: Place, changes: dict[str, Any], told: int, at: int) -> dict[str, Any]:
    """Rank `told` gets SIGTERM within step `at`; the run then goes on from what was saved, in a new loop."""
    with joined(place) as here:
        spec = tiny.spec(**changes)
        run, kept, events = run_of(here, spec, tiny.llama())
        original = run.batches

        def interrupted(finished: int) -> Iterator[list[MicroBatch]]:
            for step, batches in enumerate(original(finished), start=finished + 1):
                if step == at and place.rank == told:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batches

        run.batches = interrupted
        run.stop.install()
        try:
            loop.train(run)
            ended = "Complete"
        except Preempted as error:
            ended = str(error)
        stopped = list(kept.saved)
        if ended != "Complete":
            run.batches, run.stop = original, PreemptionSignal()
            run.history = History.of(kept.states[-1]["history"]) if kept.states else History()
            loop.train(run)
        steps = [event.progress.step for event in events if event.event == "step"]
        return {"ended": ended, "stopped": stopped, "saved": kept.saved, "steps": steps, "history": run.history.state()}


def evaluations(place: Place, counts: list[int], stage: int) -> list[evaluation.EvaluationResult | None]:
    """The result on so many rows, dealt out unevenly."""
    spec = tiny.spec(deepspeed={"zeroStage": stage})
    objective = objectives.of(spec, tiny.tokenizer())
    with joined(place) as here:
        model = engine.build(spec, tiny.llama(), here, "Float32")
        results = []
        for count in counts:
            rows = tiny.rows(count)
            most = -(-count // here.size)
            mine = [row if row < count else None for row in range(here.rank, most * here.size, here.size)]
            nothing = tiny.part(rows, 0, 1) | {"labels": torch.full((1, 16), tiny.IGNORED)}
            parts = [nothing if row is None else tiny.part(rows, row, row + 1) for row in mine]
            batches = [tiny.micro(part, objective) for part in parts]
            results.append(evaluation.evaluate(model, objective, [[batch] for batch in batches], here, lambda: True))
        results.append(evaluation.evaluate(model, objective, [[batch] for batch in batches], here, lambda: False))
    return results


def export_all(place: Place, cases: list[tuple[Path, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Trains and exports each case of folder, model and changes."""
    with joined(place) as here:
        return [_export(here, folder, model, tiny.spec(**changes)) for folder, model, changes in cases]


def export_both(place: Place, cases: list[tuple[Path, str, dict[str, Any]]]) -> list[Any]:
    """The same, each case with its adapters merged and alone; only what the live model makes of a batch is returned."""
    with joined(place) as here:
        return [_export_both(here, folder, model, tiny.spec(**changes)) for folder, model, changes in cases]


def _export_both(here: process_group.ProcessGroup, folder: Path, model: str, spec: TrainSpec) -> Any:
    run, _, _ = run_of(here, spec, methods.apply(getattr(tiny, model)(), spec, objective_of(spec)))
    loop.train(run)
    run.engine.eval()
    logits = _logits(run.engine)
    ways = {"merged": True, "alone": False} if spec.method.config.separable else {"merged": True}
    for name, merged in ways.items():
        where = spec.model_copy(update={"export": spec.export.model_copy(update={"merge_adapters": merged})})
        export.save_model(run.engine.module, run.objective, where, here, folder / name, lambda: None)
    assert torch.equal(logits, _logits(run.engine)), "exporting changed the live model"
    return logits.numpy()


def lives(place: Place, cases: list[tuple[Path, str, dict[str, Any]]], names: tuple[str, ...]) -> list[Any]:
    """For each case, life by life, the losses of the steps that it computed, and its logits; each loses its last checkpoint."""
    with joined(place) as here:
        return [_lives(here, folder, model, tiny.spec(**changes), names) for folder, model, changes in cases]


def _lives(here: process_group.ProcessGroup, folder: Path, model: str, spec: TrainSpec, names: tuple[str, ...]) -> Any:
    from finetune_trainer.checkpoint.manager import CheckpointManager

    lived = []
    for life in names:
        learner = methods.apply(getattr(tiny, model)(), spec, objective_of(spec))
        run, _, events = run_of(here, spec, learner)
        run.checkpoints = checkpoints = CheckpointManager(
            engine=run.engine, storage=Storage.open(f"file://{folder}", Credentials()), settings=spec.checkpoint,
            identity=identity(spec), world=here, attempt=life, work_dir=folder / "work", report=events.append,
        )  # fmt: skip
        run.finished = (checkpoints.restore() or {"step": 0})["step"]
        loop.train(run)
        run.engine.eval()
        lived.append(([e.progress.loss for e in events if e.event == "step"], _logits(run.engine).numpy()))
        here.barrier()
        (folder / "manifests/step-00000004.json").unlink(missing_ok=True)
        here.barrier()
    return lived


def _export(here: process_group.ProcessGroup, folder: Path, model: str, spec: TrainSpec) -> dict[str, Any]:
    """What the live model made of a batch, for comparison with the folder's; and that exporting left it alone."""
    learner = methods.apply(getattr(tiny, model)(), spec, objective_of(spec))
    run, _, _ = run_of(here, spec, learner)
    loop.train(run)
    run.engine.eval()
    signs: list[None] = []
    before = _logits(run.engine)
    for _ in range(2):  # a second export, as after a restart, finds the folder of the first
        export.save_model(run.engine.module, run.objective, spec, here, folder, lambda: signs.append(None))
    assert torch.equal(before, _logits(run.engine)), "exporting changed the live model"
    frozen = [name for name, parameter in run.engine.module.named_parameters() if not parameter.requires_grad]
    return {"logits": before.float().numpy(), "frozen": len(frozen), "signs": len(signs)}


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**tiny.rows(3) | {"labels": None}).logits
    return logits
