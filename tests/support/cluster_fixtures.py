"""The fixture `cluster`, which the end-to-end tests and the tests of faults import into their conftest.py."""

from collections.abc import Iterator

import pytest
from tests.support.devcluster.session import Cluster, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A two-node cluster: the development cluster, or the one of KUBECONFIG (see devcluster/session.py)."""
    with running() as session_cluster:
        yield session_cluster
