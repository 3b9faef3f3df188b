"""Leaves a record of the rank's imports after its first step, for the spare process of the node."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import torch

from finetune_trainer.protocol.events import Event, EventSink, StepTime
from finetune_trainer.protocol.imports import ImportRecord

log = logging.getLogger(__name__)


class ImportRecorder:
    """Passes events on; upon the first finished step it writes the record, because some modules are imported only in a step."""

    def __init__(self, report: EventSink, work_dir: Path) -> None:
        self._report, self._work_dir = report, work_dir
        self._is_written = False

    def __call__(self, event: Event) -> None:
        """Pass the event on."""
        self._report(event)
        if isinstance(event, StepTime) and not self._is_written:
            self._is_written = True
            try:
                _record().write(self._work_dir)
            except OSError as error:
                log.warning("a restart in place will import all libraries: their names could not be written (%s)", error)


def _record() -> ImportRecord:
    modules = [name for name in list(sys.modules) if name != "__main__"]
    capabilities = []
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # untyped in torch
        capabilities = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
    return ImportRecord(modules=modules, accelerator=os.environ.get("DS_ACCELERATOR"), capabilities=capabilities)
