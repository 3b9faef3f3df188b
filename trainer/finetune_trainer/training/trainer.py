"""One rank of a run: data, model, training and export."""

from __future__ import annotations

import itertools
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finetune_trainer import methods
from finetune_trainer.checkpoint.completion import record_completion
from finetune_trainer.checkpoint.context import CheckpointContext
from finetune_trainer.checkpoint.local_copy import LocalCopy
from finetune_trainer.checkpoint.manager import CheckpointManager
from finetune_trainer.checkpoint.run_identity import identity
from finetune_trainer.config import TrainSpec
from finetune_trainer.config.methods.lora import AdapterConfig
from finetune_trainer.data.checks.detectors import detector_for
from finetune_trainer.data.loading.collate import Layout
from finetune_trainer.data.loading.sampler import total_steps
from finetune_trainer.data.preprocessing.consistency import validate_same_rows
from finetune_trainer.data.preprocessing.prepare import Prepared
from finetune_trainer.data.sources.resolver import SourceResolver
from finetune_trainer.distributed import devices, process_group
from finetune_trainer.distributed.collectives import on_first_rank
from finetune_trainer.distributed.preemption import PreemptionSignal
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.export.adapter import validate_adapter_export
from finetune_trainer.export.model import save_model, upload_folder
from finetune_trainer.export.reports import RunSummary, write_run_reports
from finetune_trainer.export.samples import store_samples
from finetune_trainer.methods import MethodContext
from finetune_trainer.methods.components.peft_layers import is_peft_model
from finetune_trainer.methods.components.unfreezing import build_unfreezing
from finetune_trainer.models import loading, packing_support
from finetune_trainer.models.run_data import prepare_run_data
from finetune_trainer.objectives import Objective
from finetune_trainer.preview.build import build_preview
from finetune_trainer.protocol import heartbeat
from finetune_trainer.protocol.events import Alive, DataFound, EventSink
from finetune_trainer.protocol.outcome import Outcome
from finetune_trainer.storage.base import Storage
from finetune_trainer.storage.download import localize
from finetune_trainer.tracking.reporter import Reporter
from finetune_trainer.tracking.tensorboard import record_to_tensorboard
from finetune_trainer.training import engine
from finetune_trainer.training.batches import build_batch_source
from finetune_trainer.training.completion import completed
from finetune_trainer.training.evaluation import Evaluator
from finetune_trainer.training.import_record import ImportRecorder
from finetune_trainer.training.launch_context import LaunchContext
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.lr_schedule import warmup_warning
from finetune_trainer.training.output_storage import open_checkpoint_storage, open_model_storage, validate_writable
from finetune_trainer.training.regularization import Regularizer, build_regularizer
from finetune_trainer.training.resume_check import ResumeCheck, Resumption
from finetune_trainer.training.storage_lease import hold_storage
from finetune_trainer.training.train_state import TrainState
from finetune_trainer.training.train_step import TrainStep

log = logging.getLogger(__name__)


def run(spec: TrainSpec, launch: LaunchContext, report: EventSink, stop: PreemptionSignal) -> Outcome:
    """Train the document's model and export it; raises TrainerError and any unexpected error."""
    report(Alive(activity="Preparing"))
    # Errors that need neither data nor model come first.
    engine.accumulation_steps(spec.training, launch.world_size)
    methods.create_method(spec.method).require_libraries()
    detector_for(spec.data.checks)
    storage = open_checkpoint_storage(spec.checkpoint, launch.credentials)
    if launch.local_rank == 0:
        report = ImportRecorder(report, launch.work_dir)
    if launch.rank > 0:
        return Trainer(spec, launch, storage, report, stop).run()
    validate_writable(spec.export, spec.checkpoint, launch.credentials)  # once for all ranks
    with hold_storage(storage, launch, report):
        resume_check = ResumeCheck(spec, storage)
        with record_to_tensorboard(report, storage, launch.work_dir) as recording_report:
            return Trainer(spec, launch, storage, recording_report, stop, resume_check).run()


class Trainer:
    """Runs one rank: `setup`, `train` and `export`, in this order."""

    objective: Objective
    precision: engine.Precision
    data_spec: TrainSpec
    """The document with the choice of packing that its model allows."""
    data: Prepared
    group: ProcessGroup
    layout: Layout
    engine: Any
    checkpoints: CheckpointManager
    loop: TrainingLoop
    resumption: Resumption

    def __init__(
        self, spec: TrainSpec, launch: LaunchContext, storage: Storage, report: EventSink, stop: PreemptionSignal,
        resume_check: ResumeCheck | None = None,
    ) -> None:  # fmt: skip
        """`storage` is that of the checkpoints; `report` receives the rank's events; only the first rank has a check."""
        self.spec = spec
        self.launch = launch
        self.storage = storage
        self.report = report
        self.stop = stop
        self.resume_check = resume_check
        self.resolver = SourceResolver(spec.objective, launch.cache_dir, launch.credentials)

    def run(self) -> Outcome:
        """Run the rank from the document to the stored model."""
        self.setup()
        self.train()
        return self.export()

    def setup(self) -> None:
        """Prepare the data, join the process group, build model and engine, and restore the newest checkpoint."""
        self.stop.situation = "while the run was prepared; no step was lost, and the next run prepares it again"
        device = devices.choose_device(self.launch.local_rank)  # before the data, because models that prepare data use it
        if self.launch.local_rank == 0:
            devices.log_device(device, self.launch.processes_per_node)
        self.precision = engine.choose_precision(self.spec.training.precision, device)
        if self.resume_check:
            self.resume_check.compare_files(self.resolver)
        self._prepare_data()
        self.report(Alive(activity="Loading"))
        self.group = self._join_process_group()
        validate_same_rows(self.data.report, self.group)
        self.resumption = on_first_rank(self.group, self._compare_with_checkpoint)
        model = self._build_model()
        heartbeat.beat()
        regularizer = self._build_regularizer(model)
        self.engine = engine.build_engine(
            model, self.spec.training, self.spec.deepspeed, self.spec.method.unfreeze, self.group, self.precision
        )
        self.loop = self._build_loop(regularizer)

    def train(self) -> None:
        """Train to the last step, or until the run stops early."""
        self.report(Alive(activity="Training", detail=self.resumption.continuation))
        self.loop.run()

    def export(self) -> Outcome:
        """Store the last or the best model and its reports."""
        self.report(Alive(activity="Exporting"))
        self.stop.situation = (
            f"while the model was exported; the checkpoint of the last step, {self.loop.state.step}, is stored, and the next "
            "run exports the model again"
        )
        step = self._load_best_model()
        model_uri = self._export_model(step)
        outcome = completed(self.loop, step, model_uri, self.resumption.continuation, self.data.report.summary)
        if self.launch.completes_once and self.group.is_first:
            record_completion(self.storage, self.launch.run_id, self.checkpoints.attempt, self.spec, outcome)
        process_group.leave()
        LocalCopy(self.launch.work_dir, self.launch.rank).clear()
        return outcome

    @property
    def total_steps(self) -> int:
        """The planned optimizer steps of the whole run."""
        training = self.spec.training
        return total_steps(self.data.epoch, training.batch_size, training.epochs, training.max_steps)

    def _report_preparation(self, detail: str, share: float | None) -> None:
        self.report(Alive(activity="Preparing", detail=detail, share=share))

    def _prepare_data(self) -> None:
        run_data = prepare_run_data(self.spec, self.resolver, self._report_preparation)
        self.data_spec, self.objective, self.data = run_data
        if self.launch.rank == 0:
            for line in self.data.report.lines():
                log.info("%s", line)
            self.report(DataFound(data=self.data.report.summary))

    def _compare_with_checkpoint(self) -> Resumption:
        assert self.resume_check is not None, "the first rank compares"
        resumption = self.resume_check.resumption(self.data.report, self.total_steps)
        if resumption.continuation:
            log.info("%s", resumption.continuation)
        return resumption

    def _join_process_group(self) -> ProcessGroup:
        launch = self.launch
        return process_group.join(
            rank=launch.rank, size=launch.world_size, local_rank=launch.local_rank,
            processes_per_node=launch.processes_per_node, master=launch.master,
        )  # fmt: skip

    def _build_model(self) -> Any:
        """The model as the document's method trains it; sets the layout of its batches."""
        spec, launch, objective = self.spec, self.launch, self.objective
        dtype = engine.DTYPES[self.precision]
        model = objective.build_model(
            partial(
                loading.load_model, spec.model, dtype=dtype, cache=launch.cache_dir, credentials=launch.credentials,
                seed=spec.training.seed,
            )
        )  # fmt: skip
        if launch.rank == 0:
            for note in objective.notes:
                log.warning("%s", note)
        if spec.objective.config.processor == "Tokenizer":
            loading.validate_positions(model, objective.encoder.max_lengths, spec.method.config.prefix_length)
        if spec.model.attention == "FlashAttention2":
            model.to(self.group.device)  # flash attention runs on no other device, and the next check runs the model
        packed_as = None
        is_causal = objective.model_setup.is_causal
        if is_causal is not None:
            packed_as = packing_support.detect_packing_support(model, packing=self.data_spec.packing, causal=is_causal)
        self.layout = Layout(packed_as, dtype)
        objective.model_setup.prepare(model, self.group)

        def fetch_adapter(adapter: AdapterConfig, field: str) -> Path:
            return localize(
                adapter.source, cache=launch.cache_dir, credentials=launch.credentials, secret=adapter.credentials, field=field
            )

        context = MethodContext(objective, spec.training.seed, fetch_adapter)
        model = methods.apply_method(model, spec.method, context)
        if is_peft_model(model) and not spec.export.merge_adapters:
            validate_adapter_export(model)
        return model

    def _build_regularizer(self, model: Any) -> Regularizer | None:
        return build_regularizer(
            self.spec.training, model, self.objective, self.layout, lambda: self.resolver.replay(self.spec.data), self.group,
        )  # fmt: skip

    def _build_loop(self, regularizer: Regularizer | None) -> TrainingLoop:
        """The training loop in the state of the newest checkpoint, or at step 0 if there is none."""
        spec, training, group = self.spec, self.spec.training, self.group
        context = CheckpointContext(
            storage=self.storage, identity=identity(spec), group=group, attempt=self.launch.attempt,
            work_dir=self.launch.work_dir, report=self.report, total_steps=self.total_steps, data=self.resumption.data,
        )  # fmt: skip
        self.checkpoints = CheckpointManager(self.engine, spec.checkpoint, context)
        torch.manual_seed(training.seed + group.rank)  # for dropout; a checkpoint restores its own random state
        restored = self.checkpoints.restore()
        state = TrainState() if restored is None else TrainState.from_dict(restored)
        if self.resumption.has_other_evaluation_rows and state.history.evaluations:
            log.warning("the evaluation data changed: the metrics up to step %d are dropped", state.step)
            state.history.evaluations.clear()
        unfreezing = build_unfreezing(self.engine, spec.method.unfreeze)
        steps = self.total_steps
        reporter = Reporter(
            self.report, group, total_steps=steps, steps_per_epoch=self.data.epoch / training.batch_size,
            log_every=training.log_every_steps,
        )  # fmt: skip
        reporter.resume(state.step, state.history.last_loss, state.history.last_metrics.get("loss"))
        if group.is_first:
            log.info(
                "%d steps of %d rows out of %d, %d already done", steps, training.batch_size, len(self.data.train), state.step
            )
            if warning := warmup_warning(training.schedule, steps):
                log.warning("%s", warning)
        batches = build_batch_source(self.data, self.objective, self.layout, group, training, steps)
        return TrainingLoop(
            training=training,
            evaluation=spec.evaluation,
            export_best=spec.export.best,
            group=group,
            train_step=TrainStep(self.engine, self.objective, group, training, steps, regularizer, unfreezing),
            evaluator=Evaluator(self.engine, self.objective, group, batches),
            batches=batches,
            checkpoints=self.checkpoints,
            reporter=reporter,
            stop=self.stop,
            total_steps=steps,
            state=state,
        )

    def _load_best_model(self) -> int:
        """Load the best model if it is exported and is not the last one; returns the step of the model to export."""
        last_step = self.loop.state.step
        better_steps = list(itertools.takewhile(lambda step: step != last_step, self.loop.ranked_steps))
        if not better_steps:
            return last_step
        loaded_step = self.loop.checkpoints.load_best(better_steps)
        step = last_step if loaded_step is None else loaded_step
        if step != better_steps[0]:
            log.warning("step %d was better, but its checkpoint is missing: exporting step %d", better_steps[0], step)
        return step

    def _export_model(self, step: int) -> str:
        """Store the model with its reports and then, on rank 0, samples of its text; returns the model's URI."""
        spec = self.spec
        target = open_model_storage(spec.export, spec.checkpoint, self.launch.credentials)
        folder = self.launch.work_dir / "model"
        save_model(self.engine.module, self.objective, spec.export, spec.model, self.group, folder)
        if not self.group.is_first:
            return target.uri
        state = self.loop.state
        summary = RunSummary(
            spec=spec, objective=self.objective, history=state.history,
            data=build_preview(self.data_spec, self.objective, self.data), steps=state.step,
            planned_steps=self.loop.total_steps, early_stop_reason=self.loop.early_stop_reason, exported_step=step,
        )  # fmt: skip
        write_run_reports(folder, summary)
        upload_folder(folder, target)
        if spec.evaluation.generation:
            store_samples(folder, target, self.objective, spec.evaluation.generation, self.engine.module)
        return target.uri
