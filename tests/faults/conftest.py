"""Fixtures of the tests of faults: one installation of the operator and one training run for all of them."""

from collections.abc import Iterator

import pytest
from tests.support.cluster_fixtures import cluster as cluster
from tests.support.cluster_fixtures import operator as operator
from tests.support.cluster_fixtures import run as run
from tests.support.cluster_fixtures import runs as runs
from tests.support.cluster_fixtures import storage_proxy as storage_proxy
from tests.support.cluster_jobs import Jobs
from tests.support.devcluster.session import Cluster
from tests.support.installation import namespace
from tests.support.reliability import measure as measure


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, operator: Cluster) -> Iterator[Jobs]:
    """A namespace for the jobs of a module."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with namespace(operator, name) as module_jobs:
        yield module_jobs
