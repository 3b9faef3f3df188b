"""Fixtures of the tests of faults: one installation of the operator for all, and a namespace for each module."""

from collections.abc import Iterator

import pytest
from tests.support.cluster_fixtures import cluster as cluster
from tests.support.cluster_jobs import Jobs
from tests.support.devcluster.session import Cluster
from tests.support.installation import by_helm, namespace


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the operator, installed from the chart."""
    with by_helm(cluster):
        yield cluster


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, operator: Cluster) -> Iterator[Jobs]:
    """A namespace for the jobs of a module."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with namespace(operator, name) as module_jobs:
        yield module_jobs
