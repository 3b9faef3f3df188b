"""A new objective needs two files: its config and its parts. Both are found by their names."""

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
from finetune_trainer.config.objectives.base import ObjectiveConfig, ReportedMetrics, always

class TailLMConfig(ObjectiveConfig):
    """Predict the last tokens of a text."""
    reported_metrics: ClassVar[tuple[ReportedMetrics, ...]] = always("loss", "perplexity")
    tokens: int = Field(2, ge=1, description="How many.")
'''
OBJECTIVE = """
from finetune_trainer.data.loading.collate import IGNORE_INDEX
from finetune_trainer.objectives.base import Objective
from finetune_trainer.objectives.causal_lm import CausalLMCollator, CausalLMEncoder
from finetune_trainer.objectives.losses.from_outputs import NextTokenLoss
from finetune_trainer.objectives.metrics.token_accuracy import Perplexity
from finetune_trainer.objectives.model_setups.causal import CausalModelSetup

class TailLM(Objective):
    @classmethod
    def assemble(cls, config, context, processor):
        loss = NextTokenLoss()
        return cls(
            encoder=CausalLMEncoder(processor, context),
            collator=TailCollator(processor, config.tokens),
            model_setup=CausalModelSetup(),
            loss=loss,
            metrics=Perplexity(loss),
        )

class TailCollator(CausalLMCollator):
    def __init__(self, tokenizer, tail):
        super().__init__(tokenizer)
        self.tail = tail

    def labels(self, sample):
        labels = super().labels(sample)
        labels[: -self.tail] = IGNORE_INDEX
        return labels
"""
LEARN = """
import json, sys
from pathlib import Path
from finetune_operator.codegen.crd import build_crd
from tests.support import corpora, ranks
from tests.support.learning import LLAMA, learn

if __name__ == "__main__":
    assert "tailLM" in json.dumps(build_crd())
    trained = learn(
        Path(sys.argv[1]), corpora.texts(40), run=ranks.run_here, model={"config": LLAMA},
        training={"maxSteps": 30},
        objective={"type": "TailLM", "tailLM": {"tokens": 1}},
    )
    print(json.dumps([trained.before["loss"], trained.after["loss"]]))
"""


def test_two_files_define_an_objective(tmp_path: Path) -> None:
    package = Path(finetune_trainer.__file__).parent
    copied = shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "config/objectives/tail_lm.py").write_text(CONFIG)
    (copied / "objectives/tail_lm.py").write_text(OBJECTIVE)
    (tmp_path / "learn.py").write_text(LEARN)
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[4])])}
    ran = subprocess.run(
        [sys.executable, "learn.py", "run"], cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    before, after = json.loads(ran.stdout.splitlines()[-1])
    assert after < 0.7 * before
