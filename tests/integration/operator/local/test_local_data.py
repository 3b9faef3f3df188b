"""`finetune data` and `finetune validate --data` from the document to what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_operator.cli.main import main

DOCUMENT = """\
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneJob
metadata: {name: tiny}
spec:
  model: {initialization: Scratch, config: {model_type: llama}, tokenizer: {train: {vocabSize: 300}}}
  data: {train: [{source: "file://data.jsonl"}], maxLength: 32}
  training: {maxSteps: 2}
  checkpoint: {storage: "file://storage"}
"""


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(DOCUMENT)
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"text": f"hello {number % 3}"}) + "\n" for number in range(6)))
    return file


def test_data_prints_json_and_writes_a_page(rows: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "job.yaml", "-o", "json", "--html", "page.html", "--rows", "1"]) == 0
    preview = json.loads(capfd.readouterr().out)
    assert preview["schemaVersion"] == 1
    assert (preview["train"]["documents"], preview["run"]["steps"]) == (6, 2)
    assert preview["sources"][0]["address"].endswith("data.jsonl")
    assert [finding["rows"] for finding in preview["findings"] if finding["check"] == "duplicates"] == [3]
    assert any("hello" in segment["text"] for segment in preview["shown"][0]["blocks"][0]["segments"])
    assert "hello" in Path("page.html").read_text()
    assert not Path("storage").exists(), "nothing is written to the checkpoint storage"


def test_validate_data_fails_with_the_sentence_of_a_run(rows: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with rows.open("a") as file:
        file.write('{"text": 7}\n')
    assert main(["validate", "--data", "job.yaml"]) == 2
    sentence = f"tiny: {rows}:7: column text is a int, not a string: correct or remove the row\n"
    assert capfd.readouterr() == ("", sentence)
