"""The agent's command line."""

from __future__ import annotations

import pytest

from finetune_trainer.agent import cli
from finetune_trainer.config.hang_limits import HangLimits

REQUIRED = [
    "--document", "train.json", "--job", "team/demo", "--node-rank", "0", "--nodes", "1", "--processes-per-node", "1",
    "--rendezvous", "localhost:1", "--work-dir", "work",
]  # fmt: skip


def test_hang_limits_are_those_of_the_document() -> None:
    limits = HangLimits(step_seconds=5, save_seconds=7)
    assert cli.parse([*REQUIRED, "--hang-limits", limits.model_dump_json(by_alias=True)]).hang == limits
    assert cli.parse(REQUIRED).hang == HangLimits()


def test_a_limit_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse([*REQUIRED, "--hang-limits", '{"stepSeconds": 0}'])
    assert "--hang-limits" in capsys.readouterr().err
