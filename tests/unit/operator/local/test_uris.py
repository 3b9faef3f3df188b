"""URIs of a job on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api import FineTuneJob
from finetune_operator.local.uris import missing_files, resolve_file_uris


def job(**spec: Any) -> FineTuneJob:
    base = {
        "model": {"source": "hf://organisation/model"},
        "data": {"train": [{"source": "file://data/*.jsonl"}]},
        "checkpoint": {"storage": "file://out"},
    }
    return FineTuneJob.model_validate({"metadata": {"name": "tiny"}, "spec": base | spec})


def test_resolves_relative_file_uris_against_the_base_directory() -> None:
    data: dict[str, Any] = {"train": [{"source": "file://a"}, {"source": "s3://b/c"}], "evaluation": [{"source": "file:///d"}]}
    translators = {"forward": {"source": "file://there"}, "back": {"source": "hf://a/back"}}
    data["augmentation"] = {"synonyms": {"source": "file://w.json"}, "backTranslation": translators}
    method = {"type": "LoRA", "lora": {"frozenAdapters": [{"source": "file://one"}]}}
    spec = job(data=data, model={"source": "file://./m"}, method=method, export={"storage": "file://e"}).spec
    resolved = resolve_file_uris(spec.train_document(), Path("/here"))
    assert [dataset["source"] for dataset in resolved["data"]["train"]] == ["file:///here/a", "s3://b/c"]
    assert resolved["data"]["evaluation"][0]["source"] == "file:///d"
    augmentation = resolved["data"]["augmentation"]
    assert augmentation["synonyms"]["source"] == "file:///here/w.json"
    assert [augmentation["backTranslation"][way]["source"] for way in translators] == ["file:///here/there", "hf://a/back"]
    assert resolved["method"]["lora"]["frozenAdapters"][0]["source"] == "file:///here/one"
    assert resolved["model"]["source"] == "file:///here/m"
    assert (resolved["checkpoint"]["storage"], resolved["export"]["storage"]) == ("file:///here/out", "file:///here/e")


@pytest.mark.parametrize(
    ("source", "is_missing"),
    [
        ("file://data.jsonl", False),
        ("file://folder", False),
        ("file://folder/*.jsonl", False),
        ("file://**/b.jsonl", False),
        ("file://folder/*.csv", True),
        ("file://absent", True),
        ("s3://absent/absent", False),
    ],
)
def test_finds_missing_files(tmp_path: Path, source: str, is_missing: bool) -> None:
    (tmp_path / "data.jsonl").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.jsonl").touch()
    missing = missing_files(job(data={"train": [{"source": "s3://b/c"}, {"source": source}]}), tmp_path)
    expected = [("spec", "data", "train", 1, "source")] if is_missing else []
    assert [location for location, _ in missing] == expected
