"""What a rank has imported, so that a spare process of its node can import the same before it is needed.

The first rank of a node writes the record after its first step; the fork server reads it. Does not import torch.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from finetune_trainer.config.base import Section


class ImportRecord(Section):
    """The imports of one rank, and what they depend on."""

    modules: list[str] = Field(description="Names of modules in the order in which their imports began.")
    accelerator: str | None = Field(None, description="DS_ACCELERATOR, from which DeepSpeed selects its accelerator.")
    capabilities: list[tuple[int, int]] = Field(
        default_factory=list, description="Compute capability of each GPU: libraries query it when they are imported."
    )

    @staticmethod
    def path(work_dir: Path) -> Path:
        """Where the ranks of a node leave their record."""
        return work_dir / "imports.json"

    def write(self, work_dir: Path) -> None:
        """Leave the record, complete or not at all; raises OSError when the disk is full or fails."""
        path = self.path(work_dir)
        draft = path.with_suffix(".partial")
        work_dir.mkdir(parents=True, exist_ok=True)
        draft.write_text(self.model_dump_json(by_alias=True))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> ImportRecord:
        """Read a record; raises OSError, or pydantic's ValidationError if it is none."""
        return cls.model_validate_json(path.read_bytes())
