"""A real API server accepts all installed manifests with strict validation, in dry runs."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.codegen.generate import CHART, INSTALL, NAMESPACE, ROOT

STRICT = ("apply", "--dry-run=server", "--validate=strict", "--filename=-")


def test_accepts_install_manifest(cluster: Any) -> None:
    """Namespaced objects are validated in the namespace `default`, because it exists."""
    text = (ROOT / INSTALL).read_text().replace(f"namespace: {NAMESPACE}", "namespace: default")
    output = cluster.kubectl(*STRICT, stdin=text)
    assert "deployment.apps/finetune-operator" in output
    assert "customresourcedefinition.apiextensions.k8s.io/finetunejobs.finetune-operator.io" in output


@pytest.mark.parametrize(
    "values",
    ["watchNamespaces={default}", "networkPolicy.enabled=true,dashboard.enabled=true", "image.digest=sha256:" + "0" * 64],
    ids=["namespaced", "extras", "digest"],
)
def test_accepts_chart(cluster: Any, values: str) -> None:
    # The API server admits the pod of `helm test` only with a ServiceAccount that exists, even in a dry run.
    values = f"{values},serviceAccount.name=default"
    text = cluster.helm("template", "finetune-operator", str(ROOT / CHART), "--namespace=default", f"--set={values}")
    assert "deployment.apps/finetune-operator" in cluster.kubectl(*STRICT, stdin=text)


def test_accepts_sample_secret(cluster: Any) -> None:
    text = (ROOT / "manifests/samples/storage-secret.yaml").read_text()
    assert "secret/finetune-storage" in cluster.kubectl(*STRICT, "--namespace=default", stdin=text)
