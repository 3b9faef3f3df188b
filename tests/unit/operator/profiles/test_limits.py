"""Each way in which a document might reach beyond its namespace: a field that does not exist, or a limit that refuses it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.rule_cases.documents import job

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.profiles import ProfileError, Profiles
from finetune_operator.settings import Settings


def profiles(**limits: Any) -> Profiles:
    return Profiles.model_validate({"profiles": [{"name": "default", "limits": limits}]})


def parse(changes: dict[str, Any]) -> FineTuneJob:
    return FineTuneJob.model_validate(job(changes))


def template(**fields: Any) -> dict[str, Any]:
    return {"spec.workers.template": fields}


def volume(**content: Any) -> dict[str, Any]:
    return template(volumes=[{"name": "extra", **content}])


def projected(**source: Any) -> dict[str, Any]:
    return volume(projected={"sources": [source]})


def environment(**source: Any) -> list[dict[str, Any]]:
    return [{"name": "STOLEN", "valueFrom": source}]


SECRET = {"name": "other", "key": "password"}
VOLUMES = "spec.workers.template.volumes[0]"

# Changes of a document, the field that the sentence names, and limits with which the same document is allowed.
REFUSED: tuple[tuple[str, dict[str, Any], str, dict[str, Any]], ...] = (
    ("host path", volume(hostPath={"path": "/"}), f"{VOLUMES}.hostPath", {"volumeTypes": ["hostPath"]}),
    ("inline CSI", volume(csi={"driver": "secrets-store.csi.k8s.io"}), f"{VOLUMES}.csi", {"volumeTypes": ["csi"]}),
    (
        "Secret of inline CSI",
        volume(csi={"driver": "a", "nodePublishSecretRef": {"name": "other"}}),
        f"{VOLUMES}.csi",
        {"volumeTypes": ["csi"], "secrets": ["other"]},
    ),
    ("NFS", volume(nfs={"server": "a", "path": "/"}), f"{VOLUMES}.nfs", {"volumeTypes": ["nfs"]}),
    ("image volume", volume(image={"reference": "trainer:2"}), f"{VOLUMES}.image", {"volumeTypes": ["image"]}),
    (
        "image of an image volume",
        volume(image={"reference": "evil:1"}),
        f"{VOLUMES}.image",
        {"volumeTypes": ["image"], "images": ["trainer:*", "evil:*"]},
    ),
    (
        "claim of a URI",
        {"spec.checkpoint.storage": "pvc://data/out"},
        "spec.checkpoint.storage",
        {"volumeTypes": ["persistentVolumeClaim"]},
    ),
    (
        "volume for scratch",
        {"spec.workers.scratch": {"type": "PersistentVolume", "size": "1Gi"}},
        "spec.workers.scratch.type",
        {"volumeTypes": ["ephemeral"]},
    ),
    (
        "ConfigMap in the environment",
        template(env=environment(configMapKeyRef=SECRET)),
        "spec.workers.template.env[0].valueFrom.configMapKeyRef",
        {"volumeTypes": ["configMap"]},
    ),
    (
        "Secret for pulling the image",
        template(imagePullSecrets=["other"]),
        "spec.workers.template.imagePullSecrets",
        {"imagePullSecrets": ["other"]},
    ),
    ("label", template(labels={"example.com/team": "a"}), "spec.workers.template.labels", {"labels": ["example.com/*"]}),
    (
        "annotation",
        template(annotations={"vault.hashicorp.com/agent-inject": "true"}),
        "spec.workers.template.annotations",
        {"annotations": ["vault.hashicorp.com/*"]},
    ),
    (
        "workload priority class",
        {"spec.scheduling": {"queueName": "a", "workloadPriorityClass": "high"}},
        "spec.scheduling.workloadPriorityClass",
        {"workloadPriorityClasses": ["high"]},
    ),
    (
        "workload priority class in a label",
        {"metadata.labels": {"kueue.x-k8s.io/priority-class": "high"}},
        "metadata.labels[kueue.x-k8s.io/priority-class]",
        {"workloadPriorityClasses": ["high"]},
    ),
    ("Secret volume", volume(secret={"secretName": "other"}), f"{VOLUMES}.secret", {"secrets": ["o*"]}),
    (
        "projected token",
        projected(serviceAccountToken={"path": "token", "audience": "api"}),
        f"{VOLUMES}.projected.sources[0].serviceAccountToken",
        {"volumeTypes": ["serviceAccountToken"]},
    ),
    (
        "token behind an allowed source",
        projected(downwardAPI={}, serviceAccountToken={"path": "token"}),
        f"{VOLUMES}.projected.sources[0].serviceAccountToken",
        {"volumeTypes": ["downwardAPI", "serviceAccountToken"]},
    ),
    ("projected Secret", projected(secret={"name": "other"}), f"{VOLUMES}.projected.sources[0].secret", {"secrets": ["other"]}),
    (
        "projected certificate",
        projected(podCertificate={"signerName": "a"}),
        f"{VOLUMES}.projected.sources[0].podCertificate",
        {"volumeTypes": ["podCertificate"]},
    ),
    (
        "Secret in the environment",
        template(env=environment(secretKeyRef=SECRET)),
        "spec.workers.template.env[0].valueFrom.secretKeyRef",
        {"secrets": ["other"]},
    ),
    (
        "Secret in the environment of an init container",
        template(initContainers=[{"name": "a", "env": environment(secretKeyRef=SECRET)}]),
        "spec.workers.template.initContainers[0].env[0].valueFrom.secretKeyRef",
        {"secrets": ["other"]},
    ),
    (
        "Secret as credentials",
        {"spec.checkpoint.credentials": "other"},
        "spec.checkpoint.credentials",
        {"credentialSecrets": ["other"]},
    ),
    (
        "service account",
        template(serviceAccountName="admin"),
        "spec.workers.template.serviceAccountName",
        {"serviceAccounts": ["admin"]},
    ),
    (
        "capability",
        template(securityContext={"capabilities": ["SYS_ADMIN"]}),
        "spec.workers.template.securityContext.capabilities",
        {"capabilities": ["SYS_ADMIN"]},
    ),
    (
        "root",
        template(securityContext={"runAsUser": 0}),
        "spec.workers.template.securityContext.runAsUser",
        {"runAsRoot": True},
    ),
    ("host network", template(hostNetwork=True), "spec.workers.template.hostNetwork", {"hostNetwork": True}),
    ("image", {"spec.workers.image": "evil:1"}, "spec.workers.image", {"images": ["evil:*"]}),
    (
        "image of an init container",
        template(initContainers=[{"name": "a", "image": "evil:1"}]),
        "spec.workers.template.initContainers[0].image",
        {"images": ["evil:*"]},
    ),
    (
        "priority class",
        template(priorityClassName="high"),
        "spec.workers.template.priorityClassName",
        {"priorityClasses": ["high"]},
    ),
    (
        "runtime class",
        template(runtimeClassName="runc"),
        "spec.workers.template.runtimeClassName",
        {"runtimeClasses": ["runc"]},
    ),
    ("number of nodes", {"spec.workers.nodes": 2}, "spec.workers.nodes", {"maxNodes": 2}),
    (
        "smallest number of nodes",
        {"spec.workers": {"nodes": 4, "minNodes": 2}, "spec.training.microBatchSize": 1},
        "spec.workers.minNodes",
        {"maxNodes": 4},
    ),
)
STRICT: dict[str, Any] = {
    "maxNodes": 1, "images": ["trainer:*"], "priorityClasses": [], "runtimeClasses": [], "credentialSecrets": ["storage"],
    "volumeTypes": ["downwardAPI"], "imagePullSecrets": [], "labels": [], "annotations": [], "workloadPriorityClasses": [],
}  # fmt: skip


@pytest.mark.parametrize(("changes", "field", "allowing"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refuses_with_one_sentence_what_the_limits_do_not_allow(
    changes: dict[str, Any], field: str, allowing: dict[str, Any]
) -> None:
    document = parse(changes)
    with pytest.raises(ProfileError) as error:
        profiles(**STRICT).apply(document)
    [sentence] = error.value.errors
    assert sentence.startswith(f"{field}: profile default ")
    assert profiles(**STRICT | allowing).apply(document).spec == document.spec


@pytest.mark.parametrize(("nodes", "max_nodes", "allowed"), [(4, 8, 4), (4, 4, 4), (4, 3, 2), (4, 2, 2), (4, 1, 1)], ids=str)
def test_elastic_job_gets_as_many_nodes_as_are_allowed(nodes: int, max_nodes: int, allowed: int) -> None:
    """Only numbers of nodes that divide the batch."""
    batch = {"spec.training.batchSize": 8, "spec.training.microBatchSize": 2}
    document = parse({"spec.workers": {"nodes": nodes, "minNodes": 1}} | batch)
    limited = profiles(maxNodes=max_nodes).apply(document)
    assert (limited.spec.workers.nodes, limited.desired_nodes, limited.revision) == (allowed, nodes, document.revision)


CLOSED_BY_DEFAULT = (
    "host path", "inline CSI", "Secret of inline CSI", "NFS", "image volume", "Secret volume", "projected token",
    "token behind an allowed source", "projected Secret", "projected certificate", "Secret in the environment",
    "Secret in the environment of an init container", "service account", "capability", "root", "host network",
    "image of an image volume",
)  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), [case[:2] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_limits_without_a_file(name: str, changes: dict[str, Any]) -> None:
    expectation = pytest.raises(ProfileError) if name in CLOSED_BY_DEFAULT else contextlib.nullcontext()
    with expectation:
        Profiles().apply(parse(changes))


def test_allows_ordinary_volumes_without_a_file() -> None:
    volumes = [
        {"name": "a", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "c", "configMap": {"name": "settings"}},
        {"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "e", "projected": {"sources": [{"configMap": {"name": "settings"}}, {"downwardAPI": {}}]}},
        {"name": "f", "downwardAPI": {}},
    ]
    document = parse(template(volumes=volumes))
    assert Profiles().apply(document) is document


@pytest.mark.parametrize(
    "fields",
    [
        {"hostPID": True},
        {"hostIPC": True},
        {"shareProcessNamespace": True},
        {"automountServiceAccountToken": True},
        {"hostAliases": []},
        {"containers": []},
        {"envFrom": [{"secretRef": {"name": "other"}}]},
        {"securityContext": {"privileged": True}},
        {"securityContext": {"runAsNonRoot": False}},
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        {"securityContext": {"capabilities": ["sys_admin"]}},
        {"initContainers": [{"name": "a", "securityContext": {"privileged": True}}]},
        {"initContainers": [{"name": "a", "envFrom": [{"secretRef": {"name": "other"}}]}]},
        {"initContainers": [{"name": "a", "ports": [{"hostPort": 80}]}]},
        {"initContainers": [{"name": "a", "volumeDevices": []}]},
        {"initContainers": [{"name": "a", "lifecycle": {}}]},
        {"volumes": [{"name": "a"}]},
        {"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "a", "HostPath": {"path": "/"}}]},
        {"volumes": [{"name": "a", "hostpath": {"path": "/"}}]},
        {"volumes": [{"name": "a", "host\u0050ath\u200b": {"path": "/"}}]},
        {"volumes": [{"name": "a", "ho\u017ftPath": {"path": "/"}}]},
        {"volumes": [{"name": "a", "gitRepo": {"repository": "a"}}]},
        {"volumeMounts": [{"name": "a", "mountPath": "/a", "mountPropagation": "Bidirectional"}]},
        {"env": [{"name": "A", "valueFrom": {"secretkeyref": {"name": "a", "key": "b"}}}]},
        {"resourceClaims": [{"name": "a", "resourceClaimTemplateName": "b", "adminAccess": True}]},
    ],
    ids=str,
)
def test_document_cannot_express_it(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse(template(**fields))


@pytest.mark.parametrize(
    "sources",
    [
        [{"ServiceAccountToken": {"path": "token"}}],
        [{"serviceaccounttoken": {"path": "token"}}],
        [{"\u017ferviceAccountToken": {"path": "token"}}],
        [{"secret": "other"}],
        [{"secret": {"secretName": "allowed"}}],
        [{"secret": {"name": ["allowed"]}}],
        ["serviceAccountToken"],
        {"serviceAccountToken": {"path": "token"}},
    ],
    ids=str,
)
def test_accepts_only_known_keys_in_a_projected_volume(sources: Any) -> None:
    with pytest.raises(ProfileError):
        profiles(secrets=["allowed"]).apply(parse(volume(projected={"sources": sources})))


def test_pod_never_has_a_token_or_privileges_whatever_the_profile_allows() -> None:
    wide = profiles(capabilities=["*"], hostNetwork=True, runAsRoot=True, secrets=["*"], serviceAccounts=["*"])
    document = wide.apply(parse(template(serviceAccountName="admin", initContainers=[{"name": "a"}])))
    spec = builders.build_pod(document, 0, Settings())["spec"]
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec["containers"], *spec["initContainers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert "privileged" not in container["securityContext"]


def test_credentials_bring_only_keys_of_storages_into_a_pod() -> None:
    document = parse({"spec.checkpoint.credentials": "default-token-abcde"})
    [secret] = [
        volume["secret"] for volume in builders.build_pod(document, 0, Settings())["spec"]["volumes"] if "secret" in volume
    ]
    assert secret["secretName"] == "default-token-abcde"
    assert [item["key"] for item in secret["items"]] == [
        "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
    ]  # fmt: skip
    assert all(item["path"] == item["key"] for item in secret["items"])
    assert secret["optional"] is True  # or else kubelet waits for keys that the Secret need not have


def test_command_line_has_no_text_of_the_document() -> None:
    changes = {
        "spec.checkpoint.storage": "s3://bucket/$(SHELL);reboot",
        "spec.model.config": {"model_type": "$(reboot)"},
        "spec.workers.image": "a; reboot",
    }
    command = builders.build_pod(parse(changes), 0, Settings())["spec"]["containers"][0]["command"]
    assert not any("reboot" in word or "$(" in word for word in command)
