"""The sample documents."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune_operator.api import FineTuneJob
from finetune_operator.codegen import generate

SAMPLES = generate.ROOT / "manifests/samples"
SECRET_SAMPLE = SAMPLES / "storage-secret.yaml"
JOB_SAMPLES = [path for path in sorted(SAMPLES.glob("*.yaml")) if path != SECRET_SAMPLE]


@pytest.mark.parametrize("path", JOB_SAMPLES, ids=lambda path: path.stem)
def test_sample_is_valid(path: Path) -> None:
    [document] = yaml.safe_load_all(path.read_text())
    job = FineTuneJob.model_validate(document)
    assert job.metadata.name == path.stem


def test_samples_use_the_sample_secret() -> None:
    [secret] = yaml.safe_load_all(SECRET_SAMPLE.read_text())
    used = set()
    for path in JOB_SAMPLES:
        for line in path.read_text().splitlines():
            if "credentials:" in line:
                used.add(line.partition("credentials:")[2].split("#")[0].strip())
    assert used == {secret["metadata"]["name"]}
