"""Fixtures that the tests on the cluster import into their conftest.py: the cluster, an operator, and a run to break."""

import uuid
from collections.abc import Iterator

import pytest
from tests.support.cluster_run import ClusterRun, ClusterRuns, undisturbed_curve
from tests.support.devcluster import network
from tests.support.devcluster.errors import ClusterError
from tests.support.devcluster.session import Cluster, running
from tests.support.faulty_proxy import FaultyProxy
from tests.support.installation import by_helm, namespace

PROXY_SECRET = "storage-proxy"
SESSION = uuid.uuid4().hex[:8]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A two-node cluster: the development cluster, or the one of KUBECONFIG (see devcluster/session.py)."""
    with running() as session_cluster:
        yield session_cluster


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the operator, installed from the chart."""
    if not cluster.own:
        raise ClusterError("the tests break nodes and processes, so they need the development cluster: unset KUBECONFIG.")
    with by_helm(cluster):
        yield cluster


@pytest.fixture(scope="session")
def storage_proxy(operator: Cluster) -> Iterator[FaultyProxy]:
    """A proxy of the object storage; `run` stores its checkpoints through it."""
    with FaultyProxy(operator.s3.endpoint, network.HOST) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def runs(operator: Cluster, storage_proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRuns]:
    """The training runs of the session."""
    folder = tmp_path_factory.mktemp("runs")
    with namespace(operator, "faults") as jobs:
        jobs.create_secret(PROXY_SECRET, jobs.secret | {"AWS_ENDPOINT_URL": storage_proxy.endpoint})
        runs = ClusterRuns(jobs, f"s3://finetune/faults/{SESSION}", PROXY_SECRET, undisturbed_curve(jobs, folder), folder)
        yield runs
        runs.stop()


@pytest.fixture
def run(runs: ClusterRuns) -> ClusterRun:
    """A run that trains on two nodes and has a checkpoint."""
    return runs.healthy()
