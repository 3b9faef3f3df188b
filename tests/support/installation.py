"""Installs the operator on a cluster in the two ways of the README, with images built from this checkout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cluster_jobs import SECRET, Jobs
from tests.support.devcluster.session import Cluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/finetune-operator"
NAMESPACE = "finetune-system"
RELEASE = "finetune-operator"
NEWER_FIELD = "fieldOfNewerVersion"  # in the status, see newer_chart
IMAGES = {"image": "operator", "trainerImage": "trainer"}


def upgrade(cluster: Cluster, *options: str, chart: Path = CHART) -> None:
    """Install or upgrade a chart with helm, with the images of this checkout, and wait until the operator is ready."""
    flags = []
    for key, target in IMAGES.items():
        repository, tag = cluster.image(target).rsplit(":", 1)
        flags += [f"--set-string={key}.repository={repository}", f"--set-string={key}.tag={tag}"]
    cluster.helm(
        "upgrade", "--install", RELEASE, str(chart), f"--namespace={NAMESPACE}", "--create-namespace", "--wait",
        "--timeout=180s", "--set=crds.keep=false", *flags, *options,
    )  # fmt: skip


def roll_back(cluster: Cluster) -> None:
    """Return to the revision of the chart before the last upgrade, and wait until the operator is ready."""
    cluster.helm("rollback", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--timeout=180s")


def newer_chart(folder: Path) -> Path:
    """A copy of the chart, whose CRD has another field in the status, as that of a newer version would."""
    chart = shutil.copytree(CHART, folder / "newer")
    crd = chart / "templates/crd.yaml"
    known = "                completionTime:\n"
    added = f"                {NEWER_FIELD}:\n                  type: string\n"
    text = crd.read_text()
    assert text.count(known) == 1
    crd.write_text(text.replace(known, added + known))
    return chart


@contextmanager
def by_helm(cluster: Cluster) -> Iterator[None]:
    """Install the chart with helm; uninstall it afterwards, including the CRD."""
    upgrade(cluster)
    try:
        yield
    finally:
        cluster.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
        cluster.kubectl("delete", "namespace", NAMESPACE)


@contextmanager
def by_kubectl(cluster: Cluster) -> Iterator[None]:
    """Apply the raw manifests with kubectl, with the image names of this checkout."""
    manifests = (ROOT / "manifests/install.yaml").read_text()
    for target in IMAGES.values():
        released = f"finetune-{target}:0.1.0"
        assert released in manifests
        manifests = manifests.replace(released, cluster.image(target))
    cluster.kubectl("apply", "--filename=-", stdin=manifests)
    try:
        cluster.kubectl(f"--namespace={NAMESPACE}", "rollout", "status", "deployment", "finetune-operator", "--timeout=180s")
        yield
    finally:
        cluster.kubectl("delete", "--filename=-", "--ignore-not-found", stdin=manifests)


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[Jobs]:
    """A namespace for jobs that enforces the Pod Security level "restricted" and contains the Secret of the samples."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": name},
            "stringData": secret_keys(cluster),
        },
    ]
    for item in objects:
        cluster.kubectl("apply", "--filename=-", stdin=json.dumps(item))
    jobs = Jobs(cluster, name, secret_keys(cluster))
    try:
        yield jobs
    finally:
        jobs.kubectl("delete", "ftj", "--all", "--wait=true")
        cluster.kubectl("delete", "namespace", name)


def secret_keys(cluster: Cluster) -> dict[str, str]:
    """The contents of a Secret for the S3 of the cluster."""
    return {
        "AWS_ACCESS_KEY_ID": cluster.s3.access_key,
        "AWS_SECRET_ACCESS_KEY": cluster.s3.secret_key,
        "AWS_ENDPOINT_URL": cluster.s3.endpoint,
        "AWS_REGION": "us-east-1",
    }
