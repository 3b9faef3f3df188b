"""The NetworkPolicy of a job, enforced: who can connect to its pods, and that it trains all the same."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.cluster_jobs import Jobs, tiny
from tests.support.devcluster.errors import ClusterError
from tests.support.devcluster.network import NODES
from tests.support.devcluster.network_policies import enforced
from tests.support.installation import NAMESPACE
from tests.support.waiting import wait_until

SESSION = uuid.uuid4().hex[:8]
HTTP, RENDEZVOUS = 9400, 29400
STRANGERS = "network-policy-strangers"
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}

# Prints the ports of a host to which a connection is possible.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
host, *ports = sys.argv[1:]
def connects(port):
    try:
        socket.create_connection((host, int(port)), 3).close()
        return True
    except OSError:
        return False
with ThreadPoolExecutor() as pool:
    print(json.dumps([int(port) for port, done in zip(ports, pool.map(connects, ports)) if done]))
"""
# Prints the ports at which processes of the pod listen for connections from other machines.
LISTENING = """
import json
ports = set()
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        address, port = line.split()[1].split(":")
        is_loopback = address in ("0100007F", 16 * "0" + "FFFF00000100007F", 24 * "0" + "01000000")
        if line.split()[3] == "0A" and not is_loopback:
            ports.add(int(port, 16))
print(json.dumps(sorted(ports)))
"""


@dataclass(frozen=True)
class Client:
    """A pod, or a pod of a Deployment, that tries to connect."""

    jobs: Jobs
    namespace: str
    name: str

    def run(self, script: str, *arguments: str) -> set[int]:
        """Run a script that prints a list of ports."""
        command = ("exec", self.name, "--", "python", "-c", script, *arguments)
        return set(json.loads(self.jobs.cluster.kubectl("--namespace", self.namespace, *command)))

    def reachable(self, ports: dict[str, set[int]]) -> dict[str, set[int]]:
        """The ports of each address to which a connection is possible."""
        return {address: self.run(CONNECT, address, *map(str, sorted(some))) for address, some in ports.items()}


@contextmanager
def clients(jobs: Jobs) -> Iterator[dict[str, Client]]:
    """Pods that do not belong to the job, on both nodes: strangers, neighbors in its namespace, and a Prometheus."""
    cluster = jobs.cluster
    cluster.kubectl("create", "namespace", STRANGERS)
    found = {}
    try:
        for number, node in enumerate(NODES):
            found[f"stranger on {node.name}"] = _client(jobs, STRANGERS, f"stranger-{number}", node.name, {})
            found[f"neighbor on {node.name}"] = _client(jobs, jobs.namespace, f"neighbor-{number}", node.name, {})
        found["prometheus"] = _client(jobs, STRANGERS, "prometheus", NODES[0].name, PROMETHEUS)
        for client in found.values():
            cluster.kubectl(
                "--namespace", client.namespace, "wait", "pod", client.name, "--for=condition=Ready", "--timeout=90s"
            )
        yield found
    finally:
        for client in found.values():
            cluster.kubectl("--namespace", client.namespace, "delete", "pod", client.name, "--now", "--wait=false")
        cluster.kubectl("delete", "namespace", STRANGERS, "--wait=false")


def _client(jobs: Jobs, namespace: str, name: str, node: str, labels: dict[str, str]) -> Client:
    security = {
        "runAsNonRoot": True, "runAsUser": 1000, "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {
        "name": "client",
        "image": jobs.cluster.image("operator"),
        "command": ["sleep", "infinity"],
        "securityContext": security,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    jobs.cluster.kubectl("apply", "--filename=-", stdin=json.dumps(pod))
    return Client(jobs, namespace, name)


def listening(jobs: Jobs, name: str) -> dict[str, set[int]]:
    """The ports at which the pods of a job listen, by address."""
    pods = jobs.pods(name)
    return {pod["status"]["podIP"]: Client(jobs, jobs.namespace, pod_name).run(LISTENING) for pod_name, pod in pods.items()}


def test_only_the_job_the_operator_and_prometheus_can_connect(jobs: Jobs) -> None:
    if not jobs.cluster.own:
        raise ClusterError("the test enforces policies on the nodes, so it needs the development cluster: unset KUBECONFIG.")
    job = jobs.apply(tiny("guarded", f"s3://finetune/network-policy-{SESSION}", nodes=2, steps=100_000))
    jobs.wait_for_step(job, 5)
    [owner] = json.loads(jobs.kubectl("get", "networkpolicy", job, "--output=json"))["metadata"]["ownerReferences"]
    assert owner["uid"] == jobs.get(job)["metadata"]["uid"]
    with clients(jobs) as others:
        ports = listening(jobs, job)
        first = jobs.pods(job)[f"{job}-0"]["status"]["podIP"]
        assert {HTTP, RENDEZVOUS} < ports[first], "the agent, and a store or a process group"
        everything = {name: client.reachable(ports) for name, client in others.items()}
        assert everything == dict.fromkeys(others, ports), "nothing enforces the policy yet"

        with enforced():
            wait_until(lambda: not any(others["stranger on node-1"].reachable(ports).values()), "the policy is enforced")
            nothing = {address: set[int]() for address in ports}
            only_http = {address: {HTTP} for address in ports}
            assert {name: client.reachable(ports) for name, client in others.items()} == {
                name: only_http if name == "prometheus" else nothing for name in others
            }
            operator = Client(jobs, NAMESPACE, "deploy/finetune-operator")
            assert operator.reachable(ports) == only_http
            assert Client(jobs, jobs.namespace, f"{job}-1").reachable(ports) == ports

            # A replaced pod finds its peer, the process group is formed again, and the operator reads its progress.
            jobs.kubectl("delete", "pod", f"{job}-1")
            step = jobs.status(job)["progress"]["step"]
            jobs.wait_for_step(job, step + 20)
            assert jobs.condition(job, "PodsReady")["status"] == "True"
            assert not any(others["neighbor on node-2"].reachable(listening(jobs, job)).values())

        stranger = others["stranger on node-2"]
        wait_until(lambda: stranger.reachable({first: {HTTP}})[first] == {HTTP}, "the rules are removed")
    jobs.kubectl("delete", "ftj", job)
    wait_until(lambda: not jobs.kubectl("get", "networkpolicies", "--output=name").strip(), "the policy is deleted")
