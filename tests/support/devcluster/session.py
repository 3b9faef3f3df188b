"""The cluster as a test sees it: addresses, credentials and the commands kubectl and helm.

It is this tool's own cluster, or, when KUBECONFIG names another one, that one with what these variables say of it:

================================ ======================================================================================
FINETUNE_TEST_IMAGE_REGISTRY     where its nodes pull ``<registry>/finetune-operator/<target>:<tag>`` from
FINETUNE_TEST_IMAGE_TAG          the tag (default: latest)
FINETUNE_TEST_S3_ENDPOINT        S3 as pods reach it
FINETUNE_TEST_S3_HOST_ENDPOINT   S3 as the tests reach it (default: the same)
FINETUNE_TEST_S3_ACCESS_KEY      credentials of S3 (likewise ``…_SECRET_KEY``)
FINETUNE_TEST_S3_BUCKET          a bucket the tests may write to (default: finetune)
FINETUNE_TEST_PROMETHEUS         the URL of a Prometheus that scrapes pods annotated ``prometheus.io/scrape``
================================ ======================================================================================
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import cluster, gobuild, images, network, paths, services
from .errors import ClusterError, run
from .node_configuration import REGISTRY


@dataclass(frozen=True)
class S3:
    """Object storage; both endpoints lead to the same bucket."""

    endpoint: str
    host_endpoint: str
    access_key: str
    secret_key: str
    bucket: str


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    kubeconfig: Path
    registry: str
    s3: S3
    prometheus: str
    # Whether it is this tool's, whose images are built on demand and whose nodes can be broken (faults.py).
    own: bool

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output; a failure raises ClusterError with what it said."""
        return run(self.command("kubectl"), *arguments, stdin=stdin, env={"KUBECONFIG": str(self.kubeconfig)})

    def helm(self, *arguments: str) -> str:
        """Run helm and return its output."""
        return run(self.command("helm"), *arguments, env={"KUBECONFIG": str(self.kubeconfig)})

    def command(self, name: str) -> Path:
        """The file of a command: the one compiled here, or for a foreign cluster rather the user's own."""
        installed = None if self.own else shutil.which(name)
        return Path(installed) if installed else gobuild.binary(name)

    def image(self, target: str) -> str:
        """The image of a target of the Dockerfile, as the cluster's nodes pull it."""
        if self.own:
            return images.image(target)
        return f"{self.registry}/finetune-operator/{target}:{os.environ.get('FINETUNE_TEST_IMAGE_TAG', 'latest')}"

    def base_image(self) -> str:
        """An image with a shell and little else."""
        return images.base_image() if self.own else images.BASE


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster for the length of a test session.

    What was up before stays up; what this session brought up goes down with it, unless another session uses it too.
    """
    if foreign := _foreign_kubeconfig():
        yield _foreign(foreign)
        return
    if os.geteuid() != 0:
        raise ClusterError("the cluster makes namespaces and mounts: run as root, or set KUBECONFIG to use another one.")
    network.bypass_proxies()
    with paths.shared("sessions") as is_last:
        brought_up = cluster.up()
        try:
            yield _own()
        finally:
            if brought_up and is_last():
                cluster.down()


def _own() -> Cluster:
    return Cluster(
        kubeconfig=paths.KUBECONFIG,
        registry=REGISTRY,
        s3=S3(services.S3, services.S3, services.ACCESS_KEY, services.SECRET_KEY, services.BUCKET),
        prometheus=services.PROMETHEUS,
        own=True,
    )


def _foreign_kubeconfig() -> Path | None:
    named = os.environ.get("KUBECONFIG")
    return Path(named) if named and Path(named) != paths.KUBECONFIG else None


def _foreign(kubeconfig: Path) -> Cluster:
    endpoint = _variable("S3_ENDPOINT")
    return Cluster(
        kubeconfig=kubeconfig,
        registry=_variable("IMAGE_REGISTRY"),
        s3=S3(
            endpoint=endpoint,
            host_endpoint=os.environ.get("FINETUNE_TEST_S3_HOST_ENDPOINT", endpoint),
            access_key=_variable("S3_ACCESS_KEY"),
            secret_key=_variable("S3_SECRET_KEY"),
            bucket=os.environ.get("FINETUNE_TEST_S3_BUCKET", services.BUCKET),
        ),
        prometheus=_variable("PROMETHEUS"),
        own=False,
    )


def _variable(name: str) -> str:
    value = os.environ.get(f"FINETUNE_TEST_{name}")
    if not value:
        raise ClusterError(f"KUBECONFIG names a cluster of yours, so FINETUNE_TEST_{name} must be set too.")
    return value
