"""Pods of a completed run that start again report its outcome; every other start trains or exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import launch, ranks
from tests.support.launch import RankResult
from tests.support.ranks import Place


def run_once(place: Place, document: Path) -> RankResult:
    """Run a rank as in a pod of the operator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_COMPLETES_ONCE", "1")
        return launch.run_rank(place, document)


def times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def edit(document: Path, **changes: Any) -> None:
    content = json.loads(document.read_text())
    for section, fields in changes.items():
        content[section] |= fields
    document.write_text(json.dumps(content))


def test_a_completed_run_is_not_repeated_but_can_be_prolonged(tmp_path: Path) -> None:
    document = launch.write_document(tmp_path, training={"schedule": {"type": "Constant"}})
    first = ranks.run(run_once, 2, document)
    assert [result.code for result in first] == [0, 0]
    stored = times(tmp_path / "storage")
    (tmp_path / "train.jsonl").rename(tmp_path / "moved.jsonl")

    repeated = ranks.run(run_once, 2, document)
    assert [result.code for result in repeated] == [0, 0]
    assert repeated[0].outcome == repeated[1].outcome == first[0].outcome
    assert first[0].outcome.data is not None
    assert [result.activities for result in repeated] == [["Starting"], ["Starting"]], "it needs neither data nor model"
    assert times(tmp_path / "storage") == stored

    (tmp_path / "moved.jsonl").rename(tmp_path / "train.jsonl")
    edit(document, training={"maxSteps": 9})
    prolonged = ranks.run(run_once, 2, document)[0]
    assert prolonged.code == 0
    assert [event.progress.step for event in prolonged.events if event.event == "step"] == [7, 8, 9]
    assert ranks.run(run_once, 2, document)[0].outcome == prolonged.outcome


def test_a_local_run_is_repeated(tmp_path: Path) -> None:
    document = launch.write_document(tmp_path)
    assert ranks.run(run_once, 1, document)[0].code == 0
    local = ranks.run(launch.run_rank, 1, document)[0]
    assert local.code == 0
    assert local.outcome.resumed == "all 6 steps were trained before: the model is exported again"
