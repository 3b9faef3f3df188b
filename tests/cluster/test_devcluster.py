"""The cluster does what the tests on it take for granted: run with `pytest tests/cluster/test_devcluster.py` (as root)."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from .devcluster.session import Cluster

NAMESPACE = "devcluster-test"
PEERS = ("peer-0", "peer-1")
# Debian's smallest Perl, since the base image has no better web server.
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
    """A pod as confined as the operator's, apart from the other by a rule of the scheduler, and never ready."""
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
    """Two running pods on two nodes, in a namespace that admits only restricted ones, found by a headless Service."""
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
        eventually(lambda name=name: kubectl(cluster, "apply", "--filename=-", stdin=json.dumps(pod(name, image))) or True)
    for name in PEERS:
        kubectl(cluster, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl in the test's namespace."""
    return cluster.kubectl(f"--namespace={NAMESPACE}", *arguments, stdin=stdin)


def shell(cluster: Cluster, name: str, script: str) -> str:
    """Run a script in one of the pods."""
    return kubectl(cluster, "exec", name, "--", "bash", "-ec", script)


def eventually[T](attempt: Callable[[], T], seconds: float = 30) -> T:
    """The first true result of an attempt; an error counts as a failed attempt until the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := attempt():
                return result
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
