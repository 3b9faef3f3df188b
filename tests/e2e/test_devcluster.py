"""The cluster provides what the other end-to-end tests need. Run with `pytest tests/e2e/test_devcluster.py` (as root)."""

import json
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store
from tests.support.devcluster import paths
from tests.support.devcluster.errors import ClusterError
from tests.support.devcluster.session import Cluster

T = TypeVar("T")
NAMESPACE = "devcluster-test"
PEERS = ("peer-0", "peer-1")
# An HTTP server in Perl, because the Debian base image has neither Python nor a web server.
SERVE = r"""
use IO::Socket::INET;
$| = 1; print "serving\n";
my $server = IO::Socket::INET->new(LocalPort => 8000, Listen => 9, ReuseAddr => 1) or die;
while (my $client = $server->accept) {
    while (<$client>) { last if /^\r?\n$/ }
    my $body = qq(devcluster_test_value{namespace="claimed",job="of-the-target"} 42\n);
    print $client "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n$body";
    close $client;
}
"""


def pod(name: str, image: str) -> dict[str, object]:
    """A pod that is as restricted as a trainer pod, runs on another node than its peer, and is never ready."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "peer"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8000", "prometheus.io/path": "/m"},
        },
        "spec": {
            "hostname": name,
            "subdomain": "peers",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "peer"}}}
                    ]
                }
            },
            "containers": [
                {
                    "name": "peer",
                    "image": image,
                    "command": ["perl", "-e", SERVE],
                    "readinessProbe": {"exec": {"command": ["false"]}},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}, {"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }


@pytest.fixture(scope="module")
def peers(cluster: Cluster) -> Iterator[Cluster]:
    """Two running pods on two nodes with a headless Service, in a namespace that enforces the level "restricted"."""
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    image = cluster.base_image()
    objects = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "peers", "namespace": NAMESPACE},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "peer"}},
        },
    ]
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    for name in PEERS:
        # A new namespace has no service account at first.
        retry(partial(kubectl, cluster, "apply", "--filename=-", stdin=json.dumps(pod(name, image))))
    for name in PEERS:
        kubectl(cluster, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl in the namespace of the test."""
    return cluster.kubectl(f"--namespace={NAMESPACE}", *arguments, stdin=stdin)


def shell(cluster: Cluster, name: str, script: str) -> str:
    """Run a script in one of the pods."""
    return kubectl(cluster, "exec", name, "--", "bash", "-ec", script)


def retry(attempt: Callable[[], T], seconds: float = 30) -> T:
    """The first true result of an attempt; errors are retried until the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := attempt():
                return result
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "the attempt did not succeed in time"
        time.sleep(0.3)


def test_pods_run_on_both_nodes(peers: Cluster) -> None:
    nodes = kubectl(peers, "get", "pods", "--output=jsonpath={.items[*].spec.nodeName}").split()
    assert len(set(nodes)) == 2
    if peers.own:
        assert set(nodes) == {"node-1", "node-2"}


@pytest.mark.parametrize(("here", "there"), [PEERS, PEERS[::-1]])
def test_headless_service_resolves_pod_names(peers: Cluster, here: str, there: str) -> None:
    name = f"{there}.peers.{NAMESPACE}.svc"
    fetch = f"exec 3<>/dev/tcp/{name}/8000; printf 'GET /m HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    assert "devcluster_test_value" in retry(partial(shell, peers, here, fetch))


def test_pods_reach_api_server_by_its_service(peers: Cluster) -> None:
    fetch = "exec 3<>/dev/tcp/kubernetes.default.svc/443; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3"
    assert "400 Bad Request" in shell(peers, PEERS[0], fetch)  # the API server requires TLS


def test_pods_reach_object_storage(peers: Cluster) -> None:
    endpoint = urllib.parse.urlsplit(peers.s3.endpoint)
    assert endpoint.hostname
    if endpoint.scheme == "http":
        fetch = (
            f"exec 3<>/dev/tcp/{endpoint.hostname}/{endpoint.port or 80}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3"
        )
        assert shell(peers, PEERS[0], fetch).startswith("HTTP/1.")


def test_kubelet_serves_logs(peers: Cluster) -> None:
    assert kubectl(peers, "logs", PEERS[1]) == "serving\n"


def test_restricted_pod_writes_only_to_memory_and_volumes(peers: Cluster) -> None:
    output = shell(
        peers,
        PEERS[0],
        """
        echo data >/dev/shm/file && echo data >/tmp/file
        ! touch /file 2>/dev/null
        test "$(id -u)" = 65532
        grep -E '^CapEff:.*0000000000000000$' /proc/self/status
        grep -E '^Seccomp:.*2$' /proc/self/status
        grep ' /dev/shm tmpfs ' /proc/mounts
        """,
    )
    assert "/dev/shm" in output


def test_object_storage_supports_conditional_writes(cluster: Cluster) -> None:
    store = S3Store(
        cluster.s3.bucket,
        endpoint=cluster.s3.host_endpoint,
        access_key_id=cluster.s3.access_key,
        secret_access_key=cluster.s3.secret_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    obstore.put(store, "devcluster-test/object", b"first")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "devcluster-test/object", b"second", mode="create")
    assert bytes(obstore.get(store, "devcluster-test/object").bytes()) == b"first"
    obstore.delete(store, "devcluster-test/object")


def test_prometheus_scrapes_annotated_pods_and_keeps_their_labels(peers: Cluster) -> None:
    def series_of_all_peers() -> list[dict[str, dict[str, str]]]:
        query = urllib.parse.urlencode({"query": "devcluster_test_value"})
        with urllib.request.urlopen(f"{peers.prometheus}/api/v1/query?{query}", timeout=5) as response:
            result: list[dict[str, dict[str, str]]] = json.load(response)["data"]["result"]
        return result if len(result) == len(PEERS) else []

    labels = [series["metric"] for series in retry(series_of_all_peers)]
    assert {label["pod"] for label in labels} == set(PEERS)
    assert {(label["namespace"], label["job"]) for label in labels} == {("claimed", "of-the-target")}


def test_helm_reaches_cluster(cluster: Cluster) -> None:
    assert isinstance(json.loads(cluster.helm("list", "--all-namespaces", "--output=json")), list)


def test_rejects_small_disk_before_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=12 * 10**9))
    with pytest.raises(
        ClusterError, match=f"^12 GB are free at {tmp_path}, and the cluster's commands and images take 40: make"
    ):
        paths.require_disk_space()
    (tmp_path / "registry").mkdir()  # most of the files exist already
    paths.require_disk_space()
