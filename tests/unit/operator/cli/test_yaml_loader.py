"""Loading of FineTuneJobs from YAML, and the file and line of each error."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from finetune_operator.cli.yaml_loader import DocumentError, load_documents, load_jobs

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


def write_file(folder: Path, text: str) -> str:
    file = folder / "job.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("text", [JOB, SECRET + JOB, "# comment\n---\n" + JOB + "---\n", JOB + "---\n" + SECRET])
def test_loads_a_job_among_other_documents(tmp_path: Path, text: str) -> None:
    (loaded,) = load_jobs(write_file(tmp_path, text))
    assert loaded.job.metadata.name == "tiny"
    assert loaded.job.spec.training.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("s3://bucket/data", "ftp://x"), ":10: spec.data.train[0].source: 'ftp://x' is invalid: begin the URI with"),
        (("learningRate", "learnRate"), ":13: spec.training.optimizer.learnRate: no such field; remove it or correct"),
        (("name: tiny", "name: TINY"), ":4: metadata.name: not a valid name for pods"),
        (("storage: s3://bucket/run", "keepLast: 3"), ":14: spec.checkpoint.storage: is required; add it"),
        (
            ("learningRate: 1e-4", "learningRate: 1\n      learningRate: 2"),
            ":14: duplicate key learningRate (first in line 13); remove one",
        ),
        (("kind: FineTuneJob", "kind: FinetuneJob"), ":2: kind: 'FinetuneJob' is not one of 'FineTuneJob'"),
        (("name: tiny", "name: 'tiny"), " invalid YAML: "),
        (("metadata:\n  name: tiny\n", ""), ":1: metadata: is required; add it"),
    ],
    ids=[
        "scheme", "unknown-field", "name", "missing-field", "duplicate-key", "kind", "unclosed-quote", "no-metadata",
    ],
)  # fmt: skip
def test_reports_an_error_with_file_and_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = write_file(tmp_path, JOB.replace(*change))
    with pytest.raises(DocumentError) as error:
        load_jobs(file)
    (sentence,) = error.value.validation_errors
    assert sentence.startswith(file)
    assert message in sentence


def test_reports_all_errors_of_all_documents(tmp_path: Path) -> None:
    bad = JOB.replace("s3://bucket/data", "ftp://x").replace("learningRate", "learnRate")
    with pytest.raises(DocumentError) as error:
        load_jobs(write_file(tmp_path, f"{bad}---\n{bad}"))
    assert [sentence.split(":")[1] for sentence in error.value.validation_errors] == ["10", "13", "26", "29"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", ":1: not a mapping; a document begins with apiVersion: and kind:"),
        (SECRET, ": contains no FineTuneJob; add one"),
        ("", ": contains no FineTuneJob; add one"),
        ("a: [\n", ":2: invalid YAML"),
        ("a: !python/object:os.system {}\n", ":1: invalid YAML"),
        ("a: \x00\n", "invalid YAML"),
    ],
    ids=["list", "other-kind", "empty", "unclosed-list", "python-tag", "null-character"],
)
def test_rejects_a_file_without_a_job(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=r".+") as error:
        load_jobs(write_file(tmp_path, text))
    assert message in str(error.value)


def test_rejects_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: No such file or directory"):
        load_jobs(str(tmp_path / "absent"))
    (tmp_path / "image").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentError, match="not UTF-8 text"):
        load_jobs(str(tmp_path / "image"))


def test_parses_values_like_the_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "date: 2026-01-01\nrate: 1E5\nsmall: 2e-3\ntext: e5\nbase: &b {x: 1}\nuse: {<<: *b}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    (document,) = load_documents("-")
    assert document.content == {
        "date": "2026-01-01", "rate": 100000.0, "small": 0.002, "text": "e5", "base": {"x": 1}, "use": {"x": 1},
    }  # fmt: skip
    assert document.file_and_line(("small",)) == "standard input:3"
