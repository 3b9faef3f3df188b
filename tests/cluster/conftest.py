"""The cluster every test in this folder runs on."""

from collections.abc import Iterator

import pytest

from .devcluster.session import Cluster, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real two-node cluster: this folder's own, or the one KUBECONFIG names (see devcluster/session.py)."""
    with running() as found:
        yield found
