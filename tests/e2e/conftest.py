"""The cluster every test in this folder runs on."""

from collections.abc import Iterator

import pytest
from tests.support.cluster_jobs import Jobs
from tests.support.devcluster.session import Cluster, running
from tests.support.installation import by_helm, by_kubectl, namespace


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real two-node cluster: this folder's own, or the one KUBECONFIG names (see devcluster/session.py)."""
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Jobs]:
    """A namespace served by the operator, which is installed the way the module's INSTALLED_BY says."""
    install = {"helm": by_helm, "kubectl": by_kubectl}[request.module.INSTALLED_BY]
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with install(cluster), namespace(cluster, name) as found:
        yield found
