"""A real API server takes the generated CRD and judges every document as Python does, with the same sentence."""

from __future__ import annotations

import copy
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
from tests.support.rule_cases.documents import ABSENT, Case, job

from finetune_operator.api import GROUP, PLURAL, VERSION, FineTuneJob
from finetune_operator.codegen.crd import NAME, crd
from finetune_trainer.config import explain

NAMESPACE = "default"
SAMPLES = sorted((Path(__file__).parents[2] / "manifests/samples").glob("*.yaml"))
Verdict = set[tuple[str, str]]
"""Each mistake in a document: the field, and the sentence about it; empty for an accepted one."""


@pytest.fixture(scope="module")
def api(cluster: Any) -> Iterator[client.ApiClient]:
    """A client of the cluster's API server, which knows this revision's FineTuneJob."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as connection:
        definitions = client.ApiextensionsV1Api(connection)
        wanted = crd()
        try:
            definitions.create_custom_resource_definition(wanted)
        except client.ApiException as create_error:
            if create_error.status != 409:
                raise
            definitions.patch_custom_resource_definition(NAME, wanted)
        _wait_until_served(definitions, wanted)
        yield connection
        definitions.delete_custom_resource_definition(NAME)  # or a later install by helm would find it and refuse


def _wait_until_served(definitions: client.ApiextensionsV1Api, wanted: dict[str, Any]) -> None:
    """The API server takes a definition at once, and serves it a moment later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = definitions.read_custom_resource_definition(NAME)
        states = {condition.type: condition.status for condition in found.status.conditions or ()}
        if states.get("Established") == "True":
            assert states.get("NonStructuralSchema") is None
            return
        time.sleep(0.05)
    raise AssertionError(f"{wanted['metadata']['name']} was not established within 30 s")


def _verdict(attempt: Callable[[], Any]) -> Verdict:
    try:
        attempt()
    except client.ApiException as create_error:
        details = json.loads(create_error.body)["details"]
        causes = {(cause["field"], cause["message"].removeprefix("Invalid value: ")) for cause in details["causes"]}
        return {(field, sentence) for field, sentence in causes if field != "<nil>"}
    return set()


def _create(api: client.ApiClient, document: dict[str, Any], **options: Any) -> dict[str, Any]:
    jobs = client.CustomObjectsApi(api)
    made: dict[str, Any] = jobs.create_namespaced_custom_object(
        GROUP, VERSION, NAMESPACE, PLURAL, document, field_validation="Strict", **options
    )
    return made


def _python(document: dict[str, Any]) -> Verdict:
    try:
        FineTuneJob.model_validate(document)
    except ValidationError as create_error:
        return {(field, advice) for field, _, advice in (line.partition(": ") for line in explain(create_error))}
    return set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_server_and_python_agree(api: client.ApiClient, case: Case) -> None:
    for changes in (case.accepted, case.refused):
        document = job(changes)
        server = _verdict(lambda document=document: _create(api, document, dry_run="All"))
        expected = {case.field} if changes is case.refused else set()
        for violations in (server, _python(document)):
            assert {field for field, _ in violations} == expected
            assert not violations or any(case.sentence in sentence for _, sentence in violations)


@pytest.fixture
def existing(api: client.ApiClient) -> Iterator[Callable[[str, Any], dict[str, Any]]]:
    """Creates a job with one field of spec set; it is gone after the test."""
    made: list[str] = []

    def make(field: str, value: Any) -> dict[str, Any]:
        document = _create(api, job({"metadata.name": f"frozen-{field}", f"spec.{field}": value}))
        made.append(document["metadata"]["name"])
        return document

    yield make
    for name in made:
        client.CustomObjectsApi(api).delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)


def _replace(api: client.ApiClient, document: dict[str, Any]) -> Verdict:
    jobs = client.CustomObjectsApi(api)
    name = document["metadata"]["name"]
    return _verdict(
        lambda: jobs.replace_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name, document, dry_run="All")
    )


@pytest.mark.parametrize(("field", "before", "after"), TRANSITIONS, ids=[field for field, _, _ in TRANSITIONS])
def test_what_is_trained_is_frozen(api: client.ApiClient, existing: Any, field: str, before: Any, after: Any) -> None:
    document = existing(field, before)
    document["spec"]["runPolicy"]["suspend"] = True
    assert _replace(api, document) == set()
    document["spec"].pop(field)
    if after is not ABSENT:  # An absent field is filled in again, and so has not changed.
        document["spec"][field] = after
    frozen = (f"spec.{field}", f"{field} is immutable: apply the change under another metadata.name")
    assert (frozen in _replace(api, document)) == (after is not ABSENT)


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("model.config", {"model_type": "llama", "a": 1}, {"model_type": "llama", "a": 2}),
        ("model.config", {"model_type": "llama", "a": 1}, {"model_type": "llama", "b": 1}),
        ("model.config", {"model_type": "llama", "a": {"b": 1}}, {"model_type": "llama", "a": {"c": 1}}),
        ("workers.template", {"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "valueFrom": "1"}]}),
    ],
)
def test_free_form_fields_are_frozen_too(api: client.ApiClient, existing: Any, path: str, before: Any, after: Any) -> None:
    section, _, field = path.partition(".")
    base = job()["spec"].get(section, {})
    document = existing(section, base | {field: before})
    document["spec"][section] = copy.deepcopy(base) | {field: after}
    assert {at for at, _ in _replace(api, document)} == {f"spec.{section}"}


def test_defaults_are_those_of_python(api: client.ApiClient) -> None:
    document = job({"spec.evaluation.generation.prompts": ["a"]})
    made = _create(api, document, dry_run="All")
    assert made["spec"] == FineTuneJob.model_validate(document).spec.document()
    assert "status" not in made


def test_an_unknown_field_is_refused(api: client.ApiClient) -> None:
    with pytest.raises(client.ApiException, match="unknown field"):
        _create(api, job({"spec.training.epoch": 1}), dry_run="All")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_accepted(api: client.ApiClient, path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == "FineTuneJob"]
    for document in documents:
        assert _create(api, document, dry_run="All")["spec"] == FineTuneJob.model_validate(document).spec.document()
