"""A real API server with the generated CRD validates every document like Python does, with the same messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from pydantic import ValidationError
from tests.support.rule_cases import CASES, TRANSITIONS
from tests.support.rule_cases.documents import Case, job
from tests.support.rule_cases.transitions import Transition

from finetune_operator.api import GROUP, PLURAL, VERSION, FineTuneJob
from finetune_operator.api.transition_rules import transition_errors
from finetune_operator.codegen.crd import CRD_NAME, build_crd
from finetune_trainer.config import explain

NAMESPACE = "default"
SAMPLES = sorted((Path(__file__).parents[2] / "manifests/samples").glob("*.yaml"))
Violations = set[tuple[str, str]]
"""(field, message) of each violated rule; empty for an accepted document."""


@pytest.fixture(scope="module")
def api(cluster: Any) -> Iterator[client.ApiClient]:
    """A client of the API server, on which the CRD of this checkout is installed."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as connection:
        definitions = client.ApiextensionsV1Api(connection)
        definition = build_crd()
        try:
            definitions.create_custom_resource_definition(definition)
        except client.ApiException as error:
            if error.status != 409:
                raise
            definitions.patch_custom_resource_definition(CRD_NAME, definition)
        _wait_until_served(definitions, definition)
        yield connection
        definitions.delete_custom_resource_definition(CRD_NAME)  # otherwise a later installation with helm fails


def _wait_until_served(definitions: client.ApiextensionsV1Api, definition: dict[str, Any]) -> None:
    """Wait until the API server serves a new definition."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        current = definitions.read_custom_resource_definition(CRD_NAME)
        states = {condition.type: condition.status for condition in current.status.conditions or ()}
        if states.get("Established") == "True":
            assert states.get("NonStructuralSchema") is None
            return
        time.sleep(0.05)
    raise AssertionError(f"{definition['metadata']['name']} was not established within 30 s")


def _violations_of(request: Callable[[], Any]) -> Violations:
    try:
        request()
    except client.ApiException as error:
        details = json.loads(error.body)["details"]
        causes = {(cause["field"], cause["message"].removeprefix("Invalid value: ")) for cause in details["causes"]}
        return {(field, message) for field, message in causes if field != "<nil>"}
    return set()


def _create(api: client.ApiClient, document: dict[str, Any], **options: Any) -> dict[str, Any]:
    jobs = client.CustomObjectsApi(api)
    created: dict[str, Any] = jobs.create_namespaced_custom_object(
        GROUP, VERSION, NAMESPACE, PLURAL, document, field_validation="Strict", **options
    )
    return created


def _python_violations(document: dict[str, Any]) -> Violations:
    try:
        FineTuneJob.model_validate(document)
    except ValidationError as error:
        return {(field, message) for field, _, message in (line.partition(": ") for line in explain(error))}
    return set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_server_and_python_agree(api: client.ApiClient, case: Case) -> None:
    for changes in (case.accepted, case.refused):
        document = job(changes)
        server = _violations_of(lambda document=document: _create(api, document, dry_run="All"))
        expected = {case.field} if changes is case.refused else set()
        for violations in (server, _python_violations(document)):
            assert {field for field, _ in violations} == expected
            assert not violations or any(case.sentence in message for _, message in violations)


@pytest.fixture
def existing(api: client.ApiClient) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A function that creates a job with changes of the base document; the job is deleted after the test."""
    created: list[str] = []

    def create(changes: dict[str, Any]) -> dict[str, Any]:
        document = _create(api, job({"metadata.name": "existing", **changes}))
        created.append(document["metadata"]["name"])
        return document

    yield create
    for name in created:
        client.CustomObjectsApi(api).delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)


def _replace(api: client.ApiClient, document: dict[str, Any]) -> Violations:
    jobs = client.CustomObjectsApi(api)
    name = document["metadata"]["name"]
    return _violations_of(
        lambda: jobs.replace_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name, document, dry_run="All")
    )


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda transition: transition.name)
def test_server_and_python_refuse_the_same_changes(api: client.ApiClient, existing: Any, transition: Transition) -> None:
    stored = existing(transition.before)
    assert _replace(api, stored) == set()
    for suspend in (False, True):
        changed = job({"metadata": stored["metadata"], **transition.after, "spec.runPolicy.suspend": suspend})
        old, new = FineTuneJob.model_validate(stored | {"status": {}}), FineTuneJob.model_validate(changed)
        expected = {(field, message) for field, _, message in (line.partition(": ") for line in transition_errors(old, new))}
        assert bool(expected) == (not suspend or not transition.is_mutable)
        assert _replace(api, changed) == expected


def test_defaults_equal_those_of_python(api: client.ApiClient) -> None:
    document = job({"spec.evaluation.generation.prompts": ["a"]})
    created = _create(api, document, dry_run="All")
    assert created["spec"] == FineTuneJob.model_validate(document).spec.document()
    assert "status" not in created


def test_rejects_unknown_field(api: client.ApiClient) -> None:
    with pytest.raises(client.ApiException, match="unknown field"):
        _create(api, job({"spec.training.epoch": 1}), dry_run="All")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_accepts_samples(api: client.ApiClient, path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == "FineTuneJob"]
    for document in documents:
        assert _create(api, document, dry_run="All")["spec"] == FineTuneJob.model_validate(document).spec.document()
