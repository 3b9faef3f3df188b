"""Settings from flags, environment variables and defaults."""

from __future__ import annotations

import pytest

from finetune_operator.settings import Settings


def test_flags_override_variables_and_variables_override_defaults() -> None:
    settings = Settings.from_arguments(
        ["--trainer-image", "registry/trainer:1", "--http-port=9090"],
        {"FINETUNE_OPERATOR_HTTP_PORT": "1", "FINETUNE_OPERATOR_WORKERS": "4", "OTHER": "x"},
    )
    assert (settings.trainer_image, settings.http_port, settings.workers) == ("registry/trainer:1", 9090, 4)
    assert settings.api_timeout == Settings().api_timeout


@pytest.mark.parametrize(("text", "namespaces"), [("", ()), ("a", ("a",)), (" a, b ,", ("a", "b"))])
def test_splits_namespaces(text: str, namespaces: tuple[str, ...]) -> None:
    assert Settings(namespaces=text).watched_namespaces == namespaces


@pytest.mark.parametrize(
    ("text", "peers"), [("", None), ('[{"ipBlock": {"cidr": "10.0.0.0/8"}}]', [{"ipBlock": {"cidr": "10.0.0.0/8"}}])]
)
def test_parses_peers_of_network_policies(text: str, peers: list[object] | None) -> None:
    assert Settings.from_arguments(["--network-policy-peers", text], {}).network_policy_peers == peers


@pytest.mark.parametrize("text", ["[", "[]", "{}", '["a"]'])
def test_rejects_peers_that_are_no_list_of_objects(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_arguments(["--network-policy-peers", text], {})
    assert "--network-policy-peers:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--workers", "many"], ["--log-format", "xml"], ["--nonsense", "1"]])
def test_error_names_the_flag(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_arguments(arguments, {})
    assert arguments[0] in capsys.readouterr().err


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_arguments(["--help"], {})
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in shown for name in Settings.model_fields)
