"""`helm test` of an installed chart."""

from __future__ import annotations

import re

from tests.support.devcluster.session import Cluster
from tests.support.installation import NAMESPACE, RELEASE


def test_helm_test_passes(operator: Cluster) -> None:
    output = operator.helm("test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=180s")
    assert re.search(rf"TEST SUITE:\s+{RELEASE}-test\b", output)
    assert re.search(r"Phase:\s+Succeeded", output)
