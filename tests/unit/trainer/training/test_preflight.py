"""The checks before a run name a model whose files cannot be used, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.config import TrainSpec
from finetune_trainer.protocol.outcome import ConfigurationError
from finetune_trainer.storage.base import Credentials
from finetune_trainer.training.preflight import validate_model


def spec_of(source: str) -> TrainSpec:
    document = {
        "model": {"source": source},
        "data": {"train": [{"source": "file:///a"}]},
        "checkpoint": {"storage": "file:///b"},
    }
    return TrainSpec.model_validate(document)


def test_names_a_damaged_file_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ConfigurationError, match=rf"^spec\.model\.source: {tmp_path}/model\.safetensors is a Git LFS pointer"):
        validate_model(spec_of(f"file://{tmp_path}"), Credentials(), tmp_path / "cache")


def test_downloads_no_model(tmp_path: Path) -> None:
    validate_model(spec_of("hf://someone/a-model"), Credentials(), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_imports_no_torch() -> None:
    program = "import sys, finetune_trainer.training.preflight; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
