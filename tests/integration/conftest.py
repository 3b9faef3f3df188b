"""Fixtures that need a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import s3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """A real S3 server with one bucket, for all tests of the session; each test takes a path of its own in it."""
    with s3.serve(tmp_path_factory.mktemp("s3") / "server") as server:
        yield server
