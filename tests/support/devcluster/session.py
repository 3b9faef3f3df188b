"""The cluster that tests use: addresses, credentials, and the commands kubectl and helm.

It is the development cluster, or another one if KUBECONFIG names one. These variables then describe it:

================================ ======================================================================================
FINETUNE_TEST_IMAGE_REGISTRY     registry from which its nodes pull ``<registry>/finetune-operator/<target>:<tag>``
FINETUNE_TEST_IMAGE_TAG          the tag (default: latest)
FINETUNE_TEST_S3_ENDPOINT        S3 endpoint for pods
FINETUNE_TEST_S3_HOST_ENDPOINT   S3 endpoint for the tests (default: that for pods)
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
    """Object storage; pods use `endpoint`, tests use `host_endpoint`."""

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
    # Whether it is the development cluster, whose images are built on demand and which supports faults.py.
    own: bool

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return its output. Raises ClusterError with the output if it fails."""
        return run(self.command("kubectl"), *arguments, stdin=stdin, env={"KUBECONFIG": str(self.kubeconfig)})

    def helm(self, *arguments: str) -> str:
        """Run helm and return its output."""
        return run(self.command("helm"), *arguments, env={"KUBECONFIG": str(self.kubeconfig)})

    def command(self, name: str) -> Path:
        """The file of a command: the compiled one, or for another cluster the user's own if it is installed."""
        installed = None if self.own else shutil.which(name)
        return Path(installed) if installed else gobuild.binary(name)

    def image(self, target: str) -> str:
        """The image reference of a target of the Dockerfile, for pods."""
        if self.own:
            return images.image(target)
        return f"{self.registry}/finetune-operator/{target}:{os.environ.get('FINETUNE_TEST_IMAGE_TAG', 'latest')}"

    def base_image(self) -> str:
        """The reference of a small image with a shell."""
        return images.base_image() if self.own else images.BASE


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster for the duration of a test session.

    A cluster that was already up stays up. One that this session started is stopped at its end, unless another session uses
    it.
    """
    if kubeconfig := _external_kubeconfig():
        yield _external_cluster(kubeconfig)
        return
    if os.geteuid() != 0:
        raise ClusterError("the cluster creates namespaces and mounts: run as root, or set KUBECONFIG to use another cluster.")
    network.bypass_proxies()
    with paths.shared("sessions") as is_only_user:
        was_started = cluster.up()
        try:
            yield _development_cluster()
        finally:
            if was_started and is_only_user():
                cluster.down()


def _development_cluster() -> Cluster:
    return Cluster(
        kubeconfig=paths.KUBECONFIG,
        registry=REGISTRY,
        s3=S3(services.S3, services.S3, services.ACCESS_KEY, services.SECRET_KEY, services.BUCKET),
        prometheus=services.PROMETHEUS,
        own=True,
    )


def _external_kubeconfig() -> Path | None:
    value = os.environ.get("KUBECONFIG")
    if not value or Path(value) == paths.KUBECONFIG:
        return None
    return Path(value)


def _external_cluster(kubeconfig: Path) -> Cluster:
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
        raise ClusterError(f"FINETUNE_TEST_{name} is not set, but KUBECONFIG names another cluster: set it too.")
    return value
