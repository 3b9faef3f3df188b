"""A real API server accepts the pods of documents that use every field of the template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config
from tests.support.rule_cases.documents import job

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.settings import Settings

NAMESPACE = "default"
CONSTRAINT = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
TEMPLATES: dict[str, dict[str, Any]] = {
    "minimal": {},
    "scheduling": {
        "template": {
            "schedulerName": "other",
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "topologySpreadConstraints": [CONSTRAINT],
            "resourceClaims": [
                {"name": "gpus", "resourceClaimTemplateName": "eight-gpus"},
                {"name": "shared", "resourceClaimName": "shared"},
            ],
        }
    },
    "containers": {
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "template": {
            "env": [
                {"name": "A", "value": "a"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            ],
            "initContainers": [
                {"name": "prepare", "command": ["cp"], "args": ["-r", "/data", "/work"], "env": [{"name": "A", "value": "a"}]},
                {"name": "proxy", "restartPolicy": "Always", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            ],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
                {"name": "settings", "configMap": {"name": "settings"}},
                {
                    "name": "labels",
                    "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
                },
                {"name": "both", "projected": {"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "b"}}]}},
                {"name": "secret", "secret": {"secretName": "s"}},
                {"name": "host", "hostPath": {"path": "/data"}},
                {"name": "image", "image": {"reference": "data:1"}},
                {"name": "nfs", "nfs": {"server": "server", "path": "/"}},
                {"name": "csi", "csi": {"driver": "driver"}},
            ],
            "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": True}],
        },
    },
    "sizes": {"scratch": {"size": "10Gi"}, "sharedMemory": "1Gi"},
    "scratch in memory": {"scratch": {"type": "Memory", "size": "1Gi"}},
    "scratch on a volume": {"scratch": {"type": "PersistentVolume", "size": "10Gi", "storageClassName": "fast"}},
    "ids of the operator": {
        "template": {
            "securityContext": {"runAsUser": 5, "supplementalGroups": [7], "capabilities": ["IPC_LOCK"]},
            "serviceAccountName": "default",
            "imagePullSecrets": ["pull"],
        }
    },
    "ids of the cluster": {"template": {"securityContext": {"assignIds": "Cluster"}}},
    "network of the node": {"template": {"hostNetwork": True}},
}


@pytest.fixture(scope="module")
def pods(cluster: Any) -> Iterator[client.CoreV1Api]:
    """The pods of the API server."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as connection:
        yield client.CoreV1Api(connection)


@pytest.mark.parametrize("workers", TEMPLATES.values(), ids=list(TEMPLATES))
def test_accepts_pod(pods: client.CoreV1Api, workers: dict[str, Any]) -> None:
    document = FineTuneJob.model_validate(job({"spec.workers": {"nodes": 2} | workers}))
    body = builders.build_pod(document, 1, Settings())
    created = pods.create_namespaced_pod(NAMESPACE, body, dry_run="All", field_validation="Strict")
    assert created.metadata.name == "job-1"
