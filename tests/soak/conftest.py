"""Fixtures of the soak test."""

from tests.support.cluster_fixtures import cluster as cluster
from tests.support.cluster_fixtures import operator as operator
from tests.support.cluster_fixtures import storage_proxy as storage_proxy
