"""The files of a rank's newest stored checkpoint, which stay on the node after their upload.

A restart in place reads them instead of downloading them again, and mostly from memory: they were written and read for the
upload a short time ago, so that they are still in the page cache, which gives way where memory is scarce. What a checkpoint is
remains the manifest's decision: a file counts only with the name and the hash that the manifest lists, wherever it is read.

There is one copy at a time, which takes the room that the upload needs anyway: it is deleted before the next checkpoint is
written. A pod's disk need not be larger for it.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from finetune_trainer.checkpoint.files import is_intact
from finetune_trainer.checkpoint.manifest import File

log = logging.getLogger(__name__)


class LocalCopy:
    """The copy of one rank; all ranks of a node may read it. `folder` is the name of a checkpoint's folder, without a path."""

    def __init__(self, work_dir: Path, rank: int) -> None:
        self._root = work_dir / "recent"
        self._own = self._root / f"rank-{rank:05d}"

    def keep(self, files: Path, folder: str) -> None:
        """Move the directory `files`, with this rank's files of a checkpoint, here; it must be on the same volume.

        The checkpoint is stored, whether or not this succeeds.
        """
        self.clear()
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            files.replace(self._own / folder)
        except OSError as error:
            log.warning("a restart in place will download the checkpoint: its files could not be kept (%s)", error)

    def link(self, file: File, folder: str, target: Path) -> bool:
        """Make an intact copy of the file, of any rank of this node, appear at `target`; False if there is none."""
        for copy in sorted(self._root.glob(f"rank-*/{folder}/{file.name}")):
            if not is_intact(copy, file):
                log.warning("%s does not have the hash in the manifest: the file is read from the storage", copy)
                continue
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                os.link(copy, target)
            except OSError as error:
                log.warning("%s cannot be linked (%s): the file is read from the storage", copy, error.strerror)
                continue
            return True
        return False

    def clear_others(self, folder: str) -> None:
        """Delete this rank's copy unless it is of this checkpoint."""
        if not (self._own / folder).is_dir():
            self.clear()

    def clear(self) -> None:
        """Delete this rank's copy."""
        shutil.rmtree(self._own, ignore_errors=True)
