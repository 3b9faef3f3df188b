"""Two files add a method, one with its options and one with its code; no other file has to be changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import finetune_trainer

CONFIG = '''
from typing import ClassVar

from pydantic import Field
from finetune_trainer.config.methods.base import MethodConfig

class BiasTuningConfig(MethodConfig):
    """Trains the biases (BitFit, Ben Zaken et al. 2021, arXiv:2106.10199)."""

    trains_adapter: ClassVar[bool] = False

    embeddings: bool = Field(False, description="Whether to train the embeddings too.")
'''
METHOD = """
from finetune_trainer.config.methods.bias_tuning import BiasTuningConfig
from finetune_trainer.methods.base import Method

class BiasTuning(Method[BiasTuningConfig]):
    def apply(self, model, context):
        for name, parameter in model.named_parameters():
            is_embedding = self.config.embeddings and "wte" in name
            parameter.requires_grad_(name.endswith("bias") or is_embedding)
        return model
"""
SCRIPT = """
import json, sys
from pathlib import Path
from finetune_operator.codegen.crd import build_crd
from tests.support import corpora, ranks
from tests.support.learning import learn

GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}

if __name__ == "__main__":
    schema = json.dumps(build_crd())
    assert '"biasTuning"' in schema
    assert "options for BiasTuning have no effect with another method" in schema
    result = learn(
        Path(sys.argv[1]), corpora.texts(40), run=ranks.run_here, model={"config": GPT2},
        data={"maxLength": 48},
        training={"maxSteps": 50, "optimizer": {"learningRate": 0.02}},
        method={"type": "BiasTuning", "biasTuning": {"embeddings": True}},
    )
    files = len(list(result.model.glob("*.safetensors")))
    print(json.dumps([files, result.before["loss"], result.after["loss"]]))
"""


def test_adds_a_method_with_two_files(tmp_path: Path) -> None:
    package = Path(finetune_trainer.__file__).parent
    copy = shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "config/methods/bias_tuning.py").write_text(CONFIG)
    (copy / "methods/bias_tuning.py").write_text(METHOD)
    (tmp_path / "train.py").write_text(SCRIPT)
    repository = Path(__file__).parents[4]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(repository)])}
    process = subprocess.run(
        [sys.executable, "train.py", "run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    files, loss_before, loss_after = json.loads(process.stdout.splitlines()[-1])
    assert files == 1
    assert loss_after < 0.85 * loss_before
