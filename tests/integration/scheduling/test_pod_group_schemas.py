"""The PodGroups of other gang schedulers follow the published schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.devcluster.definitions import wait_until_established
from tests.support.devcluster.errors import ClusterError
from tests.support.devcluster.gang_schedulers import coscheduling_definition, volcano_fields
from tests.support.devcluster.standalone import Standalone
from tests.support.simulated_cluster import document

from finetune_operator.api import FineTuneJob
from finetune_operator.builders import build_pod_group

pytestmark = pytest.mark.timeout(600)


def pod_group(gang: str, **scheduling: Any) -> dict[str, Any]:
    """The PodGroup of a job with a priority class."""
    body = document(3)
    body["metadata"]["namespace"] = "default"
    body["spec"] |= {"scheduling": {"gang": gang} | scheduling}
    body["spec"]["workers"]["template"] = {"priorityClassName": "high"}
    group = build_pod_group(FineTuneJob.model_validate(body))
    assert group is not None
    return group


def test_api_server_accepts_the_pod_group_of_coscheduling(plane: Standalone) -> None:
    """With the published custom resource definition; strict validation rejects unknown fields."""
    definition = coscheduling_definition()
    plane.kubectl("apply", "--filename=-", stdin=json.dumps(definition))
    wait_until_established(plane.kubectl, definition["metadata"]["name"])
    strictly = ("create", "--validate=strict", "--dry-run=server", "--filename=-")
    group = pod_group("Coscheduling")
    plane.kubectl(*strictly, stdin=json.dumps(group))
    group["spec"]["minCount"] = 3
    with pytest.raises(ClusterError, match=r"unknown field .*minCount"):
        plane.kubectl(*strictly, stdin=json.dumps(group))


def test_fields_of_the_pod_group_of_volcano_exist() -> None:
    published = volcano_fields()
    spec = pod_group("Volcano", volcanoQueue="research")["spec"]
    types = {"int32": int, "string": str}
    assert {name: types[published[name]] for name in spec} == {name: type(value) for name, value in spec.items()}
    assert spec.keys() == {"minMember", "priorityClassName", "queue"}
