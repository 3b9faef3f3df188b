"""Runs that export small models or resume from checkpoints, for the ranks of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.support import tiny
from tests.support.methods import apply_method
from tests.support.ranks import Place
from tests.support.training import build_run, joined, objective_of

from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.manager import CheckpointManager
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import TrainSpec
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.protocol import heartbeat
from finetune_trainer.storage.base import Credentials
from finetune_trainer.storage.registry import open_storage

ExportCase = tuple[Path, str, dict[str, Any]]
"""The export folder, the name of a model in `tiny` and changes of the document."""


def train_and_export(place: Place, cases: list[ExportCase]) -> list[dict[str, Any]]:
    """Train and export each case."""
    with joined(place) as group:
        return [_train_and_export(group, folder, model, tiny.spec(**changes)) for folder, model, changes in cases]


def export_merged_and_separate(place: Place, cases: list[ExportCase]) -> list[Any]:
    """Train each case and export it with merged adapters and, if possible, with separate ones; returns the model's logits."""
    with joined(place) as group:
        return [_export_merged_and_separate(group, folder, model, tiny.spec(**changes)) for folder, model, changes in cases]


def _export_merged_and_separate(group: ProcessGroup, folder: Path, model: str, spec: TrainSpec) -> Any:
    run = build_run(group, spec, apply_method(getattr(tiny, model)(), spec, objective_of(spec)))
    run.loop.run()
    run.engine.eval()
    logits = _logits(run.engine)
    forms = {"merged": True, "alone": False} if spec.method.config.supports_adapter_export else {"merged": True}
    for name, is_merged in forms.items():
        export = spec.export.model_copy(update={"merge_adapters": is_merged})
        run.save(spec.model_copy(update={"export": export}), folder / name)
    assert torch.equal(logits, _logits(run.engine)), "exporting changed the live model"
    return logits.numpy()


def train_attempts(place: Place, cases: list[ExportCase], attempts: tuple[str, ...]) -> list[Any]:
    """For each case and attempt the losses of the computed steps and the logits; each attempt loses its last checkpoint."""
    with joined(place) as group:
        return [_train_attempts(group, folder, model, tiny.spec(**changes), attempts) for folder, model, changes in cases]


def _train_attempts(group: ProcessGroup, folder: Path, model: str, spec: TrainSpec, attempts: tuple[str, ...]) -> Any:
    results = []
    for attempt in attempts:
        run = build_run(group, spec, apply_method(getattr(tiny, model)(), spec, objective_of(spec)))
        context = CheckpointContext(
            storage=open_storage(f"file://{folder}", Credentials()), identity=identity(spec), group=group, attempt=attempt,
            work_dir=folder / "work", report=run.events.append,
        )  # fmt: skip
        checkpoints = CheckpointManager(run.engine, spec.checkpoint, context)
        run.loop.checkpoints = checkpoints
        run.loop.state.step = (checkpoints.restore() or {"step": 0})["step"]
        run.loop.run()
        run.engine.eval()
        results.append(([loss for loss, _ in run.curve], _logits(run.engine).numpy()))
        group.barrier()
        (folder / "manifests/step-00000004.json").unlink(missing_ok=True)
        group.barrier()
    return results


def _train_and_export(group: ProcessGroup, folder: Path, model: str, spec: TrainSpec) -> dict[str, Any]:
    """The live model's logits, to compare with those of the exported folder; checks that exporting leaves it unchanged."""
    run = build_run(group, spec, apply_method(getattr(tiny, model)(), spec, objective_of(spec)))
    run.loop.run()
    run.engine.eval()
    beats: list[None] = []
    logits = _logits(run.engine)
    with heartbeat.relayed_to(lambda: beats.append(None)):
        for _ in range(2):  # the second export finds the folder of the first, as after a restart
            run.save(spec, folder)
    assert torch.equal(logits, _logits(run.engine)), "exporting changed the live model"
    frozen = [name for name, parameter in run.engine.module.named_parameters() if not parameter.requires_grad]
    return {"logits": logits.float().numpy(), "frozen": len(frozen), "heartbeats": len(beats)}


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**tiny.rows(3) | {"labels": None}).logits
    return logits
