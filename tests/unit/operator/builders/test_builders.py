"""The Kubernetes objects of a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.simulated_cluster import document

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.builders.uri_references import referenced_claims, referenced_secrets
from finetune_operator.settings import Settings
from finetune_trainer.config import TrainSpec
from finetune_trainer.config.preflight import PreflightConfig


def job(nodes: int = 2, **changes: Any) -> FineTuneJob:
    body = document(nodes)
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = body["spec"]
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return FineTuneJob.model_validate(body)


def pod(index: int = 0, **changes: Any) -> dict[str, Any]:
    return builders.build_pod(job(**changes), index, Settings(trainer_image="trainer:1"))


def container(**changes: Any) -> dict[str, Any]:
    first: dict[str, Any] = pod(**changes)["spec"]["containers"][0]
    return first


def test_renders_all_objects_in_order_with_their_owner() -> None:
    objects = builders.render(job(nodes=3))
    assert [(item["kind"], item["metadata"]["name"]) for item in objects] == [
        ("Service", "finetune-trainers"), ("Pod", "j-0"), ("Pod", "j-1"), ("Pod", "j-2"),
    ]  # fmt: skip
    for item in objects[1:]:
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("job-uid", True, True)
        assert item["metadata"]["namespace"] == "team"
        assert item["metadata"]["labels"]["finetune-operator.io/job"] == "j"
        assert json.loads(json.dumps(item)) == item


def test_renders_a_document_without_uid_without_owner() -> None:
    body = document()
    del body["metadata"]["uid"]
    assert all("ownerReferences" not in item["metadata"] for item in builders.render(FineTuneJob.model_validate(body)))


def test_service_of_a_namespace_selects_all_trainer_pods_ready_or_not() -> None:
    service = builders.build_service("team")
    assert "ownerReferences" not in service["metadata"], "it stays when a job is deleted"
    assert service["metadata"]["namespace"] == "team"
    spec = service["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    template = {"labels": {"app.kubernetes.io/component": "mine"}}
    for body in (pod(), pod(index=1, workers__template=template)):
        assert spec["selector"].items() <= body["metadata"]["labels"].items()
        assert body["spec"]["subdomain"] == service["metadata"]["name"]


def test_pod_reads_the_trainers_part_of_the_document() -> None:
    spec, body = job().spec, pod()
    [volume] = [item for item in body["spec"]["volumes"] if "downwardAPI" in item]
    [mount] = [item for item in body["spec"]["containers"][0]["volumeMounts"] if item["name"] == volume["name"]]
    [item] = volume["downwardAPI"]["items"]
    assert (mount["mountPath"], item["path"]) == ("/etc/finetune", "train.json")
    key = "finetune-operator.io/document"
    assert item["fieldRef"] == {"fieldPath": f"metadata.annotations['{key}']"}
    fields = spec.model_dump(by_alias=True, include=set(TrainSpec.model_fields))
    assert TrainSpec.model_validate_json(body["metadata"]["annotations"][key]) == TrainSpec.model_validate(fields)


def test_replacement_gets_image_and_document_of_its_peers() -> None:
    body = builders.build_pod(job(), 1, Settings(trainer_image="trainer:2"), peer=builders.Peer("trainer:1", '{"a": 1}'))
    assert body["spec"]["containers"][0]["image"] == "trainer:1"
    assert body["metadata"]["annotations"]["finetune-operator.io/document"] == '{"a": 1}'


def test_command_line_of_the_agent() -> None:
    assert " ".join(container(index=1, workers__processesPerNode=2)["command"]) == (
        "python -m finetune_trainer.agent --document /etc/finetune/train.json --job team/j --run-id job-uid --node-rank 1 "
        "--nodes 2 --processes-per-node 2 --rendezvous j-0.finetune-trainers.team.svc:29400 --work-dir /work --http-port 9400 "
        "--credentials-dir /etc/finetune-credentials --termination-log /dev/termination-log "
        '--hang-limits {"startSeconds":1800,"stepSeconds":600,"evaluationSeconds":1800,"saveSeconds":1800}'
    )


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ({"limits": {"nvidia.com/gpu": "8", "cpu": 4}}, "8"),
        ({"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}}, "2"),
        ({"limits": {"nvidia.com/mig-1g.5gb": 1}}, "1"),
        ({"limits": {"nvidia.com/gpu": 0}}, None),
        ({"limits": {"nvidia.com/hostdev": 1, "memory": "1Gi"}}, None),
    ],
)
def test_tells_the_ranks_how_many_gpus_the_pod_requests(resources: dict[str, Any], gpus: str | None) -> None:
    environment = {item["name"]: item["value"] for item in container(workers__resources=resources)["env"]}
    assert environment.get("FINETUNE_REQUESTED_GPUS") == gpus


def test_dns_name_and_termination() -> None:
    spec = pod(index=1, runPolicy__terminationGracePeriodSeconds=7)["spec"]
    assert (spec["hostname"], spec["subdomain"]) == ("j-1", "finetune-trainers")
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 7)
    assert container()["terminationMessagePath"] == "/dev/termination-log"


def test_meets_the_restricted_pod_security_level() -> None:
    spec, security = pod()["spec"], container()["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert not any(key in spec for key in ("hostNetwork", "hostPID", "hostIPC"))


def test_annotations_for_prometheus_and_readiness_probe() -> None:
    annotations = pod()["metadata"]["annotations"]
    del annotations["finetune-operator.io/document"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9400",
        "prometheus.io/path": "/metrics",
        "finetune-operator.io/generation": "0",
        "finetune-operator.io/nodes": "2",
    }
    assert container()["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_mounts_each_secret_and_claim_once() -> None:
    changes = {
        "model__credentials": "hub.token",
        "checkpoint__credentials": "s3",
        "export__credentials": "s3",
        "model__source": "pvc://models/llama",
        "checkpoint__storage": "pvc://out/runs/j",
        "export__storage": "pvc://models/mine",
        "data__evaluation": [{"source": "pvc://data/eval", "credentials": "other"}],
        "data__augmentation": {
            "synonyms": {"source": "pvc://words/a.json", "credentials": "words"},
            "backTranslation": {
                "forward": {"source": "hf://organisation/there", "credentials": "there"},
                "back": {"source": "pvc://back/model"},
            },
        },
    }
    mounts = {mount["mountPath"]: mount for mount in container(**changes)["volumeMounts"]}
    paths = {mount["name"]: path for path, mount in mounts.items()}
    mounted = {paths[volume["name"]]: volume for volume in pod(**changes)["spec"]["volumes"]}
    assert mounted.keys() == mounts.keys() == {
        "/work", "/dev/shm", "/etc/finetune",
        "/etc/finetune-credentials/hub.token", "/etc/finetune-credentials/other", "/etc/finetune-credentials/s3",
        "/etc/finetune-credentials/words", "/etc/finetune-credentials/there",
        "/mnt/pvc/back", "/mnt/pvc/words", "/mnt/pvc/models", "/mnt/pvc/data", "/mnt/pvc/out",
    }  # fmt: skip
    assert mounted["/etc/finetune-credentials/s3"]["secret"]["secretName"] == "s3"
    assert mounted["/mnt/pvc/out"]["persistentVolumeClaim"] == {"claimName": "out"}
    assert mounted["/dev/shm"]["emptyDir"] == {"medium": "Memory"}
    assert {path: mounts[path].get("readOnly") for path in mounts if path.startswith("/mnt")} == {
        "/mnt/pvc/models": False, "/mnt/pvc/data": True, "/mnt/pvc/out": False, "/mnt/pvc/words": True,
        "/mnt/pvc/back": True,
    }  # fmt: skip
    changed = job(**changes)
    assert referenced_secrets(changed) == {
        "hub.token": "spec.model.credentials",
        "other": "spec.data.evaluation[0].credentials",
        "words": "spec.data.augmentation.synonyms.credentials",
        "there": "spec.data.augmentation.backTranslation.forward.credentials",
        "s3": "spec.checkpoint.credentials",
    }
    assert referenced_claims(changed) == {"models": True, "data": False, "out": True, "words": False, "back": False}


def test_sets_image_and_resources() -> None:
    assert container()["image"] == "trainer:1"
    limits = {"limits": {"nvidia.com/gpu": 8, "memory": "64Gi"}}
    custom = container(workers__image="mine:2", workers__resources=limits)
    assert (custom["image"], custom["resources"]["limits"]) == ("mine:2", {"nvidia.com/gpu": 8, "memory": "64Gi"})
    assert "imagePullPolicy" not in custom
    always = builders.build_pod(job(), 0, Settings(image_pull_policy="Always"))
    assert always["spec"]["containers"][0]["imagePullPolicy"] == "Always"


TEMPLATE = {
    "labels": {"team": "nlp", "app.kubernetes.io/instance": "other"},
    "annotations": {"note": "x", "prometheus.io/port": "80", "prometheus.io/scrape": "false"},
    "nodeSelector": {"gpu": "h200"},
    "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists"}],
    "env": [{"name": "HOME", "value": "/elsewhere"}, {"name": "NCCL_DEBUG", "value": "INFO"}],
    "volumes": [{"name": "extra", "emptyDir": {}}],
    "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "imagePullSecrets": ["pull"],
    "serviceAccountName": "trainer",
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
}


def test_template_adds_fields_but_cannot_change_those_of_the_operator() -> None:
    body = pod(workers__template=TEMPLATE)
    spec, labels = body["spec"], body["metadata"]["labels"]
    assert (labels["team"], labels["app.kubernetes.io/instance"]) == ("nlp", "j")
    annotations = body["metadata"]["annotations"]
    assert (annotations["note"], annotations["prometheus.io/port"], annotations["prometheus.io/scrape"]) == (
        "x",
        "9400",
        "false",
    )
    assert (spec["nodeSelector"], spec["imagePullSecrets"]) == ({"gpu": "h200"}, [{"name": "pull"}])
    assert (spec["serviceAccountName"], spec["priorityClassName"], spec["runtimeClassName"]) == ("trainer", "high", "nvidia")
    keys = [(item["key"], item.get("tolerationSeconds")) for item in spec["tolerations"]]
    assert keys == [("node.kubernetes.io/unreachable", None), ("node.kubernetes.io/not-ready", None)]
    environment = [(item["name"], item["value"]) for item in spec["containers"][0]["env"]]
    assert dict(environment)["HOME"] == "/elsewhere"
    assert len(environment) == len(dict(environment))
    assert spec["volumes"][-1]["name"] == spec["containers"][0]["volumeMounts"][-1]["name"] == "extra"


@pytest.mark.parametrize(
    ("nodes", "affinity", "expected"),
    [
        (1, {}, None),
        (2, {}, {"podAntiAffinity"}),
        (2, {"nodeAffinity": {}}, {"podAntiAffinity", "nodeAffinity"}),
    ],
)
def test_spreads_pods_over_nodes(nodes: int, affinity: dict[str, Any], expected: set[str] | None) -> None:
    spec = pod(nodes=nodes, workers__template={"affinity": affinity}, workers__nodes=nodes)["spec"]
    assert (set(spec["affinity"]) if "affinity" in spec else None) == expected


def test_event_shortens_its_note_to_what_the_api_server_accepts() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    job = builders.JobReference("team", "j", "u")
    body = builders.build_event(job, "j.1", "Warning", "Crashed", "é" * 3000, now, "operator-0")
    assert (body["type"], body["reason"], body["regarding"]["uid"]) == ("Warning", "Crashed", "u")
    assert body["eventTime"] == "2026-01-01T12:00:00.000000Z"
    assert body["note"] == "é" * 510 + "…"
    assert len(body["note"].encode()) <= 1024
    short = builders.build_event(job, "j.1", "Normal", "Complete", "é" * 512, now, "operator-0")
    assert short["note"] == "é" * 512


def test_command_of_the_first_pod_has_the_number_of_nodes_that_the_run_uses() -> None:
    def nodes_option(index: int) -> str:
        command = builders.build_pod(job(workers__nodes=4), index, Settings(), nodes=2)["spec"]["containers"][0]["command"]
        return str(command[command.index("--nodes") + 1])

    assert [nodes_option(index) for index in range(4)] == ["2", "2", "3", "4"], "the agent refuses a rank beyond its nodes"


def test_replacement_has_another_name_and_the_same_host_name() -> None:
    first, second = (builders.build_pod(job(), 1, Settings(), is_alternate=alternate) for alternate in (False, True))
    assert (first["metadata"]["name"], second["metadata"]["name"]) == ("j-1", "j-1-r")
    assert first["spec"] == second["spec"]
    assert first["spec"]["hostname"] == "j-1"


@pytest.mark.parametrize(
    ("changes", "changes_pods"),
    [
        ({}, False),
        ({"runPolicy__backoffLimit": 9}, False),
        ({"workers__processesPerNode": 1}, False),  # the default
        ({"workers__image": "mine:2"}, True),
        ({"workers__nodes": 1}, False),  # only the first pod is replaced
        ({"training__maxSteps": 9}, True),
        ({"checkpoint__credentials": "other"}, True),
    ],
)
def test_revision_follows_what_pods_are_made_from(changes: dict[str, Any], changes_pods: bool) -> None:
    label = "finetune-operator.io/revision"
    before, after = pod(), pod(**changes)
    assert (before["metadata"]["labels"][label] != after["metadata"]["labels"][label]) == changes_pods


def test_sizes_of_scratch_and_shared_memory() -> None:
    def volumes(**workers: Any) -> list[Any]:
        listed = pod(**{f"workers__{name}": value for name, value in workers.items()})["spec"]["volumes"]
        return [{key: value for key, value in volume.items() if key != "name"} for volume in listed[:2]]

    assert volumes() == [{"emptyDir": {}}, {"emptyDir": {"medium": "Memory"}}]
    assert volumes(scratch={"size": "200Gi"}, sharedMemory="8Gi") == [
        {"emptyDir": {"sizeLimit": "200Gi"}}, {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
    ]  # fmt: skip
    assert volumes(scratch={"type": "Memory"})[0] == {"emptyDir": {"medium": "Memory"}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Ti"}}, "storageClassName": "fast"}
    scratch = {"type": "PersistentVolume", "size": "1Ti", "storageClassName": "fast"}
    assert volumes(scratch=scratch)[0] == {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


@pytest.mark.parametrize(
    ("security_context", "pod_ids", "capabilities"),
    [
        ({}, {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}, {"drop": ["ALL"]}),
        ({"runAsUser": 7, "fsGroup": 0}, {"runAsUser": 7, "runAsGroup": 1000, "fsGroup": 0}, {"drop": ["ALL"]}),
        (
            {"runAsUser": 0, "capabilities": ["IPC_LOCK"]},
            {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 1000, "fsGroup": 1000},
            {"drop": ["ALL"], "add": ["IPC_LOCK"]},
        ),
        ({"assignIds": "Cluster"}, {}, {"drop": ["ALL"]}),
        (
            {"assignIds": "Cluster", "supplementalGroups": [5], "capabilities": ["IPC_LOCK"]},
            {"supplementalGroups": [5]},
            {"drop": ["ALL"], "add": ["IPC_LOCK"]},
        ),
    ],
)
def test_security_context(security_context: dict[str, Any], pod_ids: dict[str, Any], capabilities: dict[str, Any]) -> None:
    template = {"securityContext": security_context, "initContainers": [{"name": "prepare"}]}
    spec = pod(workers__template=template)["spec"]
    fixed = {"runAsNonRoot": True, "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["securityContext"] == fixed | pod_ids
    for built in (spec["containers"][0], spec["initContainers"][0]):
        assert built["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": capabilities,
        }  # fmt: skip


def test_init_containers_have_the_trainers_image_and_scratch_space() -> None:
    template = {
        "initContainers": [
            {"name": "prepare", "command": ["cp"], "env": [{"name": "A", "value": ""}]},
            {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "resources": {"limits": {"cpu": 1}}},
        ]
    }
    prepare, proxy = pod(workers__template=template)["spec"]["initContainers"]
    assert (prepare["image"], prepare["command"], prepare["env"]) == ("trainer:1", ["cp"], [{"name": "A", "value": ""}])
    assert prepare["volumeMounts"] == [{"name": "work", "mountPath": "/work"}]
    assert "restartPolicy" not in prepare
    assert (proxy["image"], proxy["restartPolicy"]) == ("proxy:1", "Always")
    assert proxy["resources"]["limits"] == {"cpu": 1}


def test_scheduling_fields() -> None:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    selector = {"matchLabels": {"a": "b"}}
    template = {
        "schedulerName": "volcano",
        "topologySpreadConstraints": [constraint, constraint | {"labelSelector": selector}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
    }
    spec = pod(workers__template=template)["spec"]
    assert spec["schedulerName"] == "volcano"
    own = {"matchLabels": {"finetune-operator.io/job": "j"}}
    assert spec["topologySpreadConstraints"] == [constraint | {"labelSelector": own}, constraint | {"labelSelector": selector}]
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    defaults = pod()["spec"]
    absent = {"schedulerName", "topologySpreadConstraints", "resourceClaims", "initContainers", "hostNetwork", "dnsPolicy"}
    assert not absent & defaults.keys()
    assert "claims" not in defaults["containers"][0]["resources"]


def test_host_network_resolves_cluster_names() -> None:
    spec = pod(workers__template={"hostNetwork": True})["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")


NOT_A = {"key": "metadata.name", "operator": "NotIn", "values": ["a"]}
NOT_B = {"key": "metadata.name", "operator": "NotIn", "values": ["b"]}
ZONE = {"key": "zone", "operator": "In", "values": ["1"]}


@pytest.mark.parametrize(
    ("own", "avoided", "last_resort", "expected"),
    [
        pytest.param({}, (), (), {}, id="nothing to avoid"),
        pytest.param(
            {}, ("a", "b"), (),
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [NOT_A, NOT_B]}]}},
            id="two nodes",
        ),
        pytest.param(
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [ZONE]}, {"matchFields": [NOT_B]},
            ]}},
            ("a",), (),
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [ZONE], "matchFields": [NOT_A]}, {"matchFields": [NOT_B, NOT_A]},
            ]}},
            id="each alternative of the template excludes the node",
        ),
        pytest.param(
            {}, (), ("a",),
            {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchFields": [NOT_A]}}]},
            id="a last resort",
        ),
    ],
)  # fmt: skip
def test_avoids_nodes(own: dict[str, Any], avoided: tuple[str, ...], last_resort: tuple[str, ...], expected: Any) -> None:
    single = job(nodes=1, workers__template={"affinity": {"nodeAffinity": own} if own else {}})
    body = builders.build_pod(single, 0, Settings(), avoided_nodes=avoided, last_resort_nodes=last_resort)
    assert body["spec"].get("affinity", {}).get("nodeAffinity", {}) == expected


def test_agent_gets_the_preflight_check() -> None:
    assert "--preflight" not in container()["command"]
    command = container(runPolicy__preflight={"minimumTeraflops": 200})["command"]
    config = PreflightConfig.model_validate_json(command[command.index("--preflight") + 1])
    assert config == PreflightConfig(minimum_teraflops=200)
