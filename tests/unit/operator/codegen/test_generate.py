"""Generation of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.codegen import generate


def test_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().out


def test_check_prints_a_stale_file_and_generate_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / generate.CHART
    chart.mkdir(parents=True)
    for name in ("README.md", "values.yaml"):
        (chart / name).write_text((generate.ROOT / generate.CHART / name).read_text())
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "docs/reference/finetunejob.md is stale: run make generate" in capsys.readouterr().out
    assert not (tmp_path / "docs").exists()
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
