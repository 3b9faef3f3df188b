"""YAML files, and where in them the validation_errors are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from finetune_operator.cli.yaml_loader import DocumentError, jobs, load

JOB = """\
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneJob
metadata:
  name: tiny
spec:
  model:
    source: hf://organisation/model
  data:
    train:
      - source: s3://bucket/data
  training:
    optimizer:
      learningRate: 1e-4
  checkpoint:
    storage: s3://bucket/run
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n---\n"


def written(folder: Path, text: str) -> str:
    file = folder / "job.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("text", [JOB, SECRET + JOB, "# comment\n---\n" + JOB + "---\n", JOB + "---\n" + SECRET])
def test_a_good_job_is_found_among_others(tmp_path: Path, text: str) -> None:
    (found,) = jobs(written(tmp_path, text))
    assert found.job.metadata.name == "tiny"
    assert found.job.spec.training.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (("s3://bucket/data", "ftp://x"), ":10: spec.data.train[0].source: 'ftp://x' is refused: begin the address with"),
        (("learningRate", "learnRate"), ":13: spec.training.optimizer.learnRate: no such field; remove it or correct"),
        (("name: tiny", "name: TINY"), ":4: metadata.name: metadata.name names the pods"),
        (("storage: s3://bucket/run", "keepLast: 3"), ":14: spec.checkpoint.storage: is required; add it"),
        (
            ("learningRate: 1e-4", "learningRate: 1\n      learningRate: 2"),
            ":14: learningRate is given twice (first in line 13); remove one",
        ),
        (("kind: FineTuneJob", "kind: FinetuneJob"), ":2: kind: 'FinetuneJob' is not one of 'FineTuneJob'"),
        (("name: tiny", "name: 'tiny"), " is not YAML: "),
        (("metadata:\n  name: tiny\n", ""), ":1: metadata: is required; add it"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_place(tmp_path: Path, change: tuple[str, str], mistake: str) -> None:
    file = written(tmp_path, JOB.replace(*change))
    with pytest.raises(DocumentError) as error:
        jobs(file)
    (said,) = error.value.validation_errors
    assert said.startswith(file)
    assert mistake in said


def test_all_mistakes_of_all_documents_are_told(tmp_path: Path) -> None:
    bad = JOB.replace("s3://bucket/data", "ftp://x").replace("learningRate", "learnRate")
    with pytest.raises(DocumentError) as error:
        jobs(written(tmp_path, f"{bad}---\n{bad}"))
    assert [said.split(":")[1] for said in error.value.validation_errors] == ["10", "13", "26", "29"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("- a\n- b\n", ":1: is no mapping; a document begins with apiVersion: and kind:"),
        (SECRET, ": holds no FineTuneJob; add one"),
        ("", ": holds no FineTuneJob; add one"),
        ("a: [\n", ":2: is not YAML"),
        ("a: !python/object:os.system {}\n", ":1: is not YAML"),
        ("a: \x00\n", "is not YAML"),
    ],
)
def test_files_without_a_job(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(DocumentError, match=r".+") as error:
        jobs(written(tmp_path, text))
    assert mistake in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: No such file or directory"):
        jobs(str(tmp_path / "absent"))
    (tmp_path / "image").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentError, match="is no text in UTF-8"):
        jobs(str(tmp_path / "image"))


def test_values_are_what_the_api_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "date: 2026-01-01\nrate: 1E5\nsmall: 2e-3\ntext: e5\nbase: &b {x: 1}\nuse: {<<: *b}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    (document,) = load("-")
    assert document.content == {
        "date": "2026-01-01", "rate": 100000.0, "small": 0.002, "text": "e5", "base": {"x": 1}, "use": {"x": 1},
    }  # fmt: skip
    assert document.place(("small",)) == "standard input:3"
