"""Fixtures of the end-to-end tests: the cluster, and a namespace with an installed operator."""

from collections.abc import Iterator

import pytest
from tests.support.cluster_fixtures import cluster as cluster
from tests.support.cluster_jobs import Jobs
from tests.support.devcluster.session import Cluster
from tests.support.installation import by_helm, by_kubectl, namespace


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Jobs]:
    """A namespace for jobs; the operator is installed with the tool that the module names in INSTALLED_BY."""
    install = {"helm": by_helm, "kubectl": by_kubectl}[request.module.INSTALLED_BY]
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with install(cluster), namespace(cluster, name) as module_jobs:
        yield module_jobs
