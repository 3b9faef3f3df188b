"""The choice of a profile, the merge of its defaults, and its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.rule_cases.documents import job

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.api.workers import Workers
from finetune_operator.codegen.crd import build_schema
from finetune_operator.profiles import Defaults, ProfileError, Profiles
from finetune_operator.profiles.merge import merge
from finetune_operator.settings import Settings

PAGE = Path(__file__).parents[4] / "docs/guides/profiles.md"


def parse(changes: dict[str, Any]) -> FineTuneJob:
    return FineTuneJob.model_validate(job(changes))


def with_defaults(workers: dict[str, Any], **defaults: Any) -> Any:
    profiles = Profiles.model_validate({"profiles": [{"name": "default", "defaults": defaults}]})
    return profiles.apply(parse({"spec.workers": workers})).spec.workers


THREE = Profiles.model_validate(
    {
        "profiles": [
            {"name": "default", "defaults": {"image": "default:1"}},
            {"name": "gpu", "defaults": {"image": "gpu:1"}},
            {"name": "team", "namespaces": ["team-*"], "defaults": {"image": "team:1"}},
        ]
    }
)


def in_namespace(namespace: str, profile: str | None) -> FineTuneJob:
    return parse({"metadata.namespace": namespace, "spec.workers": {"profile": profile} if profile else {}})


@pytest.mark.parametrize(
    ("namespace", "profile", "image"),
    [
        ("other", None, "default:1"),
        ("other", "gpu", "gpu:1"),
        ("team-a", None, "team:1"),
        ("team-a", "gpu", "gpu:1"),
        ("team-a", "team", "team:1"),
    ],
)
def test_choice(namespace: str, profile: str | None, image: str) -> None:
    assert THREE.apply(in_namespace(namespace, profile)).spec.workers.image == image


@pytest.mark.parametrize(("namespace", "profile"), [("other", "team"), ("other", "typo"), ("a-team-a", "team")])
def test_refuses_a_profile_of_another_namespace(namespace: str, profile: str) -> None:
    with pytest.raises(ProfileError) as error:
        THREE.apply(in_namespace(namespace, profile))
    assert str(error.value) == (
        f"spec.workers.profile: there is no profile '{profile}' for the namespace {namespace}: use default or gpu, "
        "or ask an administrator for it"
    )


def in_example(namespace: str, workers: dict[str, Any]) -> str:
    """The fields for which the example of the documentation refuses a job; empty if it allows the job."""
    [example] = re.findall(r'```yaml title="values.yaml"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    profiles = Profiles.model_validate(yaml.safe_load(example))
    try:
        profiles.apply(parse({"metadata.namespace": namespace, "spec.workers": workers, "spec.training.batchSize": 72}))
    except ProfileError as error:
        return " ".join(sentence.partition(":")[0].removeprefix("spec.workers.") for sentence in error.errors)
    return ""


OWN_IMAGE = {"image": "registry.example.com/mine:1"}
FOREIGN_IMAGE = {"image": "docker.io/evil:1"}
WANDB = {"template": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key"}}}]}}


@pytest.mark.parametrize("profile", [{}, {"profile": "default"}, {"profile": "h100"}], ids=str)
@pytest.mark.parametrize(
    ("namespace", "workers", "refused"),
    [
        ("apps", OWN_IMAGE, ""),
        ("apps", FOREIGN_IMAGE, "image"),
        ("apps", {"nodes": 9}, "nodes"),
        ("apps", WANDB, "template.env[0].valueFrom.secretKeyRef"),
        ("research-nlp", WANDB, ""),
        ("research-nlp", {"template": {"serviceAccountName": "admin"}}, "template.serviceAccountName"),
    ],
)
def test_chosen_profile_of_the_documented_example_lifts_no_limit(
    namespace: str, workers: dict[str, Any], refused: str, profile: dict[str, Any]
) -> None:
    assert in_example(namespace, workers | profile) == refused


def limited(namespace: str, profile: str | None, **workers: Any) -> list[str]:
    """The sentences about a job in a cluster whose profiles have different limits."""
    profiles = Profiles.model_validate(
        {
            "profiles": [
                {"name": "default", "limits": {"images": ["a:*"]}},
                {"name": "open", "limits": {"images": ["*:1"], "secrets": ["*"], "hostNetwork": True}},
                {"name": "team", "namespaces": ["team"], "limits": {"images": ["t:*"]}},
                {"name": "special", "namespaces": ["team", "special"], "limits": {"images": ["*"], "hostNetwork": True}},
            ]
        }
    )
    try:
        profiles.apply(
            parse({"metadata.namespace": namespace, "spec.workers": workers | ({"profile": profile} if profile else {})})
        )
    except ProfileError as error:
        return [re.sub(r".*: profile (\w+) does not allow ([^:]*).*", r"\1: \2", sentence) for sentence in error.errors]
    return []


NODE_NETWORK = {"template": {"hostNetwork": True}}


@pytest.mark.parametrize(
    ("namespace", "profile", "workers", "refusals"),
    [
        ("apps", "open", {"image": "a:1"}, []),
        ("apps", "open", {"image": "a:2"}, ["open: the image 'a"]),
        ("apps", "open", {"image": "b:1"}, ["default: the image 'b"]),
        ("apps", "open", {"image": "b:2"}, ["default: the image 'b", "open: the image 'b"]),
        ("apps", "open", NODE_NETWORK, ["default: the node's network"]),
        ("team", None, {"image": "t:2"}, []),
        ("team", "open", {"image": "t:1"}, []),
        ("team", "open", {"image": "a:1"}, ["team: the image 'a"]),
        ("team", "default", {"image": "a:1"}, ["team: the image 'a"]),
        ("team", "special", {"image": "b:1"} | NODE_NETWORK, []),
        ("special", None, {"image": "b:1"} | NODE_NETWORK, []),
        ("special", "open", {"image": "b:1"} | NODE_NETWORK, []),
    ],
)
def test_chosen_profile_only_narrows_the_limits_of_the_namespace(
    namespace: str, profile: str | None, workers: dict[str, Any], refusals: list[str]
) -> None:
    assert limited(namespace, profile, **workers) == refusals


def test_maps_and_lists_are_merged_and_entries_of_the_job_win() -> None:
    own = {
        "nodeSelector": {"zone": "a"},
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "imagePullSecrets": ["mine"],
        "tolerations": [{"key": "a"}],
        "schedulerName": "mine",
    }
    defaults = {
        "nodeSelector": {"zone": "b", "gpu": "h100"},
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "NCCL_IB_HCA", "value": "mlx5"}],
        "imagePullSecrets": ["mine", "pull"],
        "tolerations": [{"key": "a"}, {"key": "b"}],
        "schedulerName": "volcano",
        "runtimeClassName": "nvidia",
        "securityContext": {"assignIds": "Cluster"},
        "volumes": [{"name": "cache", "hostPath": {"path": "/cache"}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    merged = with_defaults({"template": own}, template=defaults).template.document()
    assert merged["nodeSelector"] == {"zone": "a", "gpu": "h100"}
    assert merged["env"] == [{"name": "NCCL_IB_HCA", "value": "mlx5"}, {"name": "NCCL_DEBUG", "value": "INFO"}]
    assert merged["imagePullSecrets"] == ["pull", "mine"]
    assert merged["tolerations"] == [{"key": "b"}, {"key": "a"}]
    assert (merged["schedulerName"], merged["runtimeClassName"]) == ("mine", "nvidia")
    assert merged["securityContext"]["assignIds"] == "Cluster"
    assert merged["volumes"] == defaults["volumes"], "the limits do not apply to an administrator's defaults"


def test_job_cannot_mount_a_volume_of_the_profile() -> None:
    with pytest.raises(ValueError, match=r"a mount names no volume of workers\.template\.volumes"):
        parse({"spec.workers.template": {"volumeMounts": [{"name": "cache", "mountPath": "/elsewhere"}]}})


@pytest.mark.parametrize(
    ("own", "requests", "limits"),
    [
        ({}, {}, {}),
        ({"limits": {"nvidia.com/gpu": 0}}, {}, {"nvidia.com/gpu": 0}),
        (
            {"limits": {"nvidia.com/gpu": 8}},
            {"cpu": 96, "memory": "1604Gi", "example.com/nic": "12"},
            {"nvidia.com/gpu": 8, "memory": "1604Gi"},
        ),
        (
            {"requests": {"memory": "1Gi"}, "limits": {"nvidia.com/gpu": "2"}},
            {"cpu": 24, "example.com/nic": "3", "memory": "1Gi"},
            {"nvidia.com/gpu": "2"},
        ),
    ],
)
def test_resources_per_gpu(own: dict[str, Any], requests: dict[str, Any], limits: dict[str, Any]) -> None:
    per_gpu = {
        "requests": {"cpu": 12, "memory": "200.5Gi", "example.com/nic": "1.5"},
        "limits": {"memory": "200.5Gi"},
    }
    resources = with_defaults({"resources": own}, resourcesPerGpu={"nvidia.com/gpu": per_gpu}).resources
    assert (resources.requests, resources.limits) == (requests, limits)


FAST = {"type": "PersistentVolume", "size": "1Ti", "storageClassName": "fast"}


@pytest.mark.parametrize(
    ("own", "defaults", "merged"),
    [
        ({}, {"size": "100Gi"}, {"size": "100Gi"}),
        ({"size": "1Gi"}, {"size": "100Gi"}, {"size": "1Gi"}),
        ({"size": "2Ti"}, FAST, FAST | {"size": "2Ti"}),
        ({"type": "Memory"}, {"size": "8Gi"}, {"type": "Memory", "size": "8Gi"}),
        ({"type": "EmptyDir"}, FAST, {"type": "EmptyDir"}),
        (
            {"type": "PersistentVolume", "size": "2Ti"},
            {"type": "EmptyDir", "size": "1Gi"},
            {"type": "PersistentVolume", "size": "2Ti"},
        ),
        (FAST | {"storageClassName": "slow"}, FAST, FAST | {"storageClassName": "slow"}),
    ],
)
def test_merges_the_scratch_volume(own: dict[str, Any], defaults: dict[str, Any], merged: dict[str, Any]) -> None:
    assert with_defaults({"scratch": own}, scratch=defaults).scratch.document() == merged


@pytest.mark.parametrize(
    ("own", "defaults", "merged"),
    [
        (
            {"supplementalGroups": [7]},
            {"assignIds": "Cluster", "supplementalGroups": [5], "capabilities": ["IPC_LOCK"]},
            {"assignIds": "Cluster", "supplementalGroups": [5, 7], "capabilities": ["IPC_LOCK"]},
        ),
        ({"runAsUser": 3}, {"runAsUser": 2, "fsGroup": 2}, {"runAsUser": 3, "fsGroup": 2}),
        ({"assignIds": "Cluster"}, {"runAsUser": 2, "capabilities": ["A"]}, {"assignIds": "Cluster", "capabilities": ["A"]}),
        ({"assignIds": "Operator", "runAsUser": 3}, {"assignIds": "Cluster"}, {"assignIds": "Operator", "runAsUser": 3}),
    ],
)
def test_merges_the_security_context(own: dict[str, Any], defaults: dict[str, Any], merged: dict[str, Any]) -> None:
    context = with_defaults({"template": {"securityContext": own}}, template={"securityContext": defaults})
    document = context.template.security_context.document()
    assert {field: value for field, value in document.items() if value != []} == merged


def test_refuses_ids_where_the_cluster_assigns_them() -> None:
    with pytest.raises(ProfileError) as error:
        with_defaults(
            {"template": {"securityContext": {"runAsUser": 3}}}, template={"securityContext": {"assignIds": "Cluster"}}
        )
    assert str(error.value) == (
        "spec.workers.template.securityContext.assignIds: profile default lets the cluster assign the ids: remove runAsUser, "
        "runAsGroup and fsGroup, or set assignIds: Operator"
    )


@pytest.mark.parametrize(("own", "merged"), [({}, True), ({"hostNetwork": False}, False), ({"hostNetwork": True}, True)])
def test_job_can_turn_off_the_network_of_the_node(own: dict[str, Any], merged: bool) -> None:
    profiles = {
        "profiles": [
            {"name": "default", "defaults": {"template": {"hostNetwork": True}}, "limits": {"hostNetwork": True}}
        ]
    }  # fmt: skip
    job = Profiles.model_validate(profiles).apply(parse({"spec.workers": {"template": own}}))
    assert job.spec.workers.template.host_network is merged
    assert ("hostNetwork" in builders.build_pod(job, 0, Settings())["spec"]) == merged


def test_stored_object_does_not_set_what_a_profile_has_a_default_for() -> None:
    workers = build_schema()["properties"]["spec"]["properties"]["workers"]["properties"]
    profile = Defaults.model_validate(
        {"scratch": FAST, "template": {"hostNetwork": True, "securityContext": {"assignIds": "Cluster"}}}
    )
    stored = Workers.model_validate({name: schema["default"] for name, schema in workers.items() if "default" in schema})
    merged = merge(stored, profile)
    assert merged.scratch == profile.scratch
    assert merged.template == profile.template


def test_default_size_of_shared_memory() -> None:
    assert with_defaults({}, sharedMemory="8Gi").shared_memory == "8Gi"
    assert with_defaults({"sharedMemory": "1Gi"}, sharedMemory="8Gi").shared_memory == "1Gi"


def test_changed_defaults_do_not_change_the_revision() -> None:
    document = parse({})
    revisions = []
    for image in ("a:1", "a:2"):
        profiles = Profiles.model_validate({"profiles": [{"name": "default", "defaults": {"image": image}}]})
        body = builders.build_pod(profiles.apply(document), 0, Settings())
        assert body["spec"]["containers"][0]["image"] == image
        revisions.append(body["metadata"]["labels"]["finetune-operator.io/revision"])
    assert revisions == [document.revision] * 2


@pytest.mark.parametrize("text", ["", "profiles: []", "profiles: [{name: a, limits: {volumeTypes: [hostPath]}}]"])
def test_valid_file(text: str) -> None:
    Profiles.parse(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("profile: []", "profile: no such field; remove it or correct its spelling"),
        ("profiles: [{name: a}, {name: a}]", "profiles: two profiles have the same name: rename one"),
        (
            "profiles: [{name: a, limits: {volumeTypes: [hostpath]}}]",
            "profiles[0].limits.volumeTypes[0]: 'hostpath' is not one of",
        ),
        ("profiles: [{name: a, defaults: {nodes: 3}}]", "profiles[0].defaults.nodes: no such field"),
        ("profiles: [", "invalid YAML: "),
    ],
)
def test_invalid_file(text: str, sentence: str) -> None:
    with pytest.raises(ProfileError) as error:
        Profiles.parse(text)
    assert str(error.value).startswith(sentence)
