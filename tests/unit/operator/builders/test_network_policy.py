"""The NetworkPolicy of a job."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.simulated_cluster import document

from finetune_operator import builders
from finetune_operator.api import FineTuneJob
from finetune_operator.settings import Settings

OPERATOR = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}, "podSelector": {}}
PROMETHEUS = {"ipBlock": {"cidr": "10.1.0.0/16"}}
SETTINGS = Settings(network_policy_peers=[OPERATOR, PROMETHEUS])


def job(**template: Any) -> FineTuneJob:
    body = document(2)
    body["spec"]["workers"]["template"] = template
    return FineTuneJob.model_validate(body)


def test_pods_of_the_job_reach_all_ports_and_the_peers_only_that_of_http() -> None:
    policy = builders.build_network_policy(job(), SETTINGS)
    assert policy is not None
    assert (policy["apiVersion"], policy["kind"], policy["metadata"]["name"]) == ("networking.k8s.io/v1", "NetworkPolicy", "j")
    pods = {"matchLabels": {"finetune-operator.io/job": "j"}}
    assert policy["spec"] == {
        "podSelector": pods,
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": pods}]},
            {"from": [OPERATOR, PROMETHEUS], "ports": [{"port": 9400, "protocol": "TCP"}]},
        ],
    }


def test_selects_the_pods_and_is_deleted_with_the_job() -> None:
    policy = builders.build_network_policy(job(), SETTINGS)
    assert policy is not None
    selector = policy["spec"]["podSelector"]["matchLabels"]
    for is_alternate in (False, True):
        pod = builders.build_pod(job(), 1, SETTINGS, is_alternate=is_alternate)
        assert selector.items() <= pod["metadata"]["labels"].items()
    [owner] = policy["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneJob", "job-uid", True)


@pytest.mark.parametrize(
    ("name", "settings", "template", "is_built"),
    [
        ("no peers are configured", Settings(), {}, False),
        ("peers are configured", SETTINGS, {}, True),
        ("no policy covers pods in the node's network", SETTINGS, {"hostNetwork": True}, False),
    ],
)
def test_is_built_before_the_pods(name: str, settings: Settings, template: dict[str, Any], is_built: bool) -> None:
    kinds = [body["kind"] for body in builders.render(job(**template), settings)]
    assert kinds == ["Service", *(["NetworkPolicy"] if is_built else []), "Pod", "Pod"]


@dataclass(frozen=True)
class Client:
    """A pod, or a machine outside of the cluster, that connects."""

    namespace: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    address: str = "10.244.0.9"


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector of a NetworkPolicy selects labels; one without requirements selects everything."""
    assert selector.keys() <= {"matchLabels"}, "the chart uses no expressions"
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def is_peer(peer: dict[str, Any], client: Client, namespace: str) -> bool:
    """Whether a client is a NetworkPolicyPeer of a policy in a namespace, by the rules of networking.k8s.io/v1."""
    if "ipBlock" in peer:
        return ipaddress.ip_address(client.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if client.namespace is None:
        return False
    if "namespaceSelector" in peer:
        in_namespace = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": client.namespace})
    else:
        in_namespace = client.namespace == namespace
    return in_namespace and matches(peer.get("podSelector", {}), client.labels)


def is_allowed(policy: dict[str, Any], client: Client, port: int) -> bool:
    """Whether a policy with the type Ingress allows a TCP connection; an absent list allows everything."""
    for rule in policy["spec"]["ingress"]:
        has_peer = not rule.get("from") or any(is_peer(peer, client, policy["metadata"]["namespace"]) for peer in rule["from"])
        has_port = not rule.get("ports") or {"port": port, "protocol": "TCP"} in rule["ports"]
        if has_peer and has_port:
            return True
    return False


OPERATOR_LABELS = {"app.kubernetes.io/name": "finetune-operator", "app.kubernetes.io/component": "operator"}
CHART_PEERS = [
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}},
        "podSelector": {"matchLabels": OPERATOR_LABELS},
    },
    {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}},
    {"ipBlock": {"cidr": "10.20.0.0/24"}},
]
NCCL = 45123
PEER, OTHER_JOB = {"finetune-operator.io/job": "j"}, {"finetune-operator.io/job": "k"}


@pytest.mark.parametrize(
    ("name", "client", "ports"),
    [
        ("a pod of the job", Client("team", PEER), {9400, 29400, NCCL}),
        ("the operator", Client("ops", OPERATOR_LABELS), {9400}),
        ("Prometheus in another namespace", Client("monitoring", {"app.kubernetes.io/name": "prometheus"}), {9400}),
        ("a collector outside of the cluster", Client(address="10.20.0.7"), {9400}),
        ("a pod of another job", Client("team", OTHER_JOB), set()),
        ("a pod without labels in the namespace", Client("team"), set()),
        ("a pod of a job of this name in another namespace", Client("other", PEER), set()),
        ("a pod with the operator's labels in another namespace", Client("other", OPERATOR_LABELS), set()),
        ("another pod in the operator's namespace", Client("ops"), set()),
        ("another machine", Client(address="10.21.0.7"), set()),
    ],
)
def test_allows_only_connections_of_the_job_and_of_the_peers(name: str, client: Client, ports: set[int]) -> None:
    policy = builders.build_network_policy(job(), Settings(network_policy_peers=CHART_PEERS))
    assert policy is not None
    assert {port for port in (9400, 29400, NCCL) if is_allowed(policy, client, port)} == ports
