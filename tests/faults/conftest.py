"""Fixtures of the tests of faults: one installation of the operator and one training run for all of them."""

import uuid
from collections.abc import Iterator

import pytest
from tests.support.cluster_fixtures import cluster as cluster
from tests.support.cluster_jobs import Jobs
from tests.support.cluster_run import ClusterRun, ClusterRuns, undisturbed_curve
from tests.support.devcluster import network
from tests.support.devcluster.errors import ClusterError
from tests.support.devcluster.session import Cluster
from tests.support.faulty_proxy import FaultyProxy
from tests.support.installation import by_helm, namespace
from tests.support.reliability import measure as measure

SESSION = uuid.uuid4().hex[:8]


@pytest.fixture(scope="session")
def operator(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the operator, installed from the chart."""
    if not cluster.own:
        raise ClusterError("the tests break nodes and processes, so they need the development cluster: unset KUBECONFIG.")
    with by_helm(cluster):
        yield cluster


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, operator: Cluster) -> Iterator[Jobs]:
    """A namespace for the jobs of a module."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with namespace(operator, name) as module_jobs:
        yield module_jobs


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
        jobs.create_secret("storage-proxy", jobs.secret | {"AWS_ENDPOINT_URL": storage_proxy.endpoint})
        runs = ClusterRuns(jobs, f"s3://finetune/faults/{SESSION}", "storage-proxy", undisturbed_curve(jobs, folder), folder)
        yield runs
        runs.stop()


@pytest.fixture
def run(runs: ClusterRuns) -> ClusterRun:
    """A run that trains on two nodes and has a checkpoint."""
    return runs.healthy()
