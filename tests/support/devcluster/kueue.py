"""Kueue, for tests of queued jobs. It is compiled and started when a test asks for it, because most tests need no queue.

Its custom resources and webhooks are those of the Go module. The webhooks are called at the address of the process, with a
certificate of this module instead of one that Kueue would rotate itself.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from . import gobuild, probe
from .certificates import Authority, write_pair
from .definitions import wait_until_established
from .errors import run
from .gobuild import KUEUE, KUEUE_MODULE, binary
from .standalone import HOST, free_ports, running, wait_until

FRAMEWORK = "FineTuneJob.v1alpha1.finetune-operator.io"
KINDS = ("workloads", "clusterqueues", "cohorts", "resourceflavors")  # most tests queue no other objects than FineTuneJobs
_CONVERTED_KINDS = ("localqueues", "clusterqueues", "cohorts", "workloads", "multikueueclusters")
_WEBHOOK_KINDS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")

# Kueue reads the certificate of its metrics from a fixed path, so $1 takes the place of /etc in a mount namespace of its own.
_ENTER = """
mount -n --bind "$1" /etc
shift
exec "$@"
"""


@contextmanager
def kueue(
    kubeconfig: Path, directory: Path, changes: dict[str, Any] | None = None, kinds: tuple[str, ...] = KINDS
) -> Iterator[None]:
    """Kueue for the cluster of a kubeconfig whose API server runs on this machine; needs root.

    `changes` are fields of its configuration that replace those of this module, and `kinds` those that its webhooks cover. Its
    custom resources stay in the cluster. Delete queues before the end, because nothing finalizes them afterwards.
    """
    gobuild.build((KUEUE_MODULE,))
    webhooks, health, metrics = free_ports(3)
    authority = Authority()
    certificates = directory / "etc" / "kueue" / "metrics" / "certs"
    write_pair(certificates, "tls", authority.issue("kueue", addresses=(HOST,)))
    configuration = directory / "configuration.json"
    configuration.write_text(json.dumps(_configuration(webhooks, health, metrics) | (changes or {}), indent=1))
    components = _components()
    address = _Address(f"https://{HOST}:{webhooks}", authority)
    definitions = [address.definition(path) for path in sorted((components / "crd" / "bases").glob("*.yaml"))]
    _apply(kubeconfig, definitions, "--server-side", "--force-conflicts")
    wait_until_established(partial(_kubectl, kubeconfig), *(item["metadata"]["name"] for item in definitions))
    command: list[str | Path] = [
        *("unshare", "--mount", "--propagation=private", "--", "/bin/sh", "-ec", _ENTER, "sh", directory / "etc"),
        binary("kueue"),
        f"--config={configuration}",
        # Its server would listen on the addresses of all networks.
        "--feature-gates=VisibilityOnDemand=false",
        "--zap-log-level=2",
    ]
    with running("kueue", command, directory, {"KUBECONFIG": str(kubeconfig)}):
        wait_until("Kueue is ready", lambda: probe.responds(f"http://{HOST}:{health}/readyz"))
        manifests = _documents(components / "webhook" / "manifests.yaml")
        _apply(kubeconfig, [address.webhooks(item, kinds) for item in manifests])
        try:
            yield
        finally:
            # Without them the API server would reject every object that they cover.
            for kind in _WEBHOOK_KINDS:
                _kubectl(kubeconfig, "delete", kind, f"kueue-{kind}", "--ignore-not-found")


class _Address:
    """The address of Kueue's webhooks, for the objects that refer to it."""

    def __init__(self, url: str, authority: Authority) -> None:
        self._url, self._bundle = url, base64.b64encode(authority.pem.encode()).decode()

    def definition(self, path: Path) -> dict[str, Any]:
        """A custom resource definition; Kueue converts the versions of those for which its manifests name a webhook."""
        [definition] = _documents(path)
        if definition["spec"]["names"]["plural"] in _CONVERTED_KINDS:
            webhook = {"clientConfig": self._client("/convert"), "conversionReviewVersions": ["v1"]}
            definition["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        return definition

    def webhooks(self, configuration: dict[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
        """A webhook configuration, limited to some kinds."""
        webhooks = []
        for webhook in configuration["webhooks"]:
            if any(resource.split("/")[0] in kinds for rule in webhook["rules"] for resource in rule["resources"]):
                webhooks.append(webhook | {"clientConfig": self._client(webhook["clientConfig"]["service"]["path"])})
        name = f"kueue-{configuration['kind'].lower()}"
        return configuration | {"metadata": {"name": name}, "webhooks": webhooks}

    def _client(self, path: str) -> dict[str, str]:
        return {"url": self._url + path, "caBundle": self._bundle}


def _configuration(webhooks: int, health: int, metrics: int) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": "default",
        "health": {"healthProbeBindAddress": f"{HOST}:{health}"},
        "metrics": {"bindAddress": f"{HOST}:{metrics}"},
        "webhook": {"host": HOST, "port": webhooks, "certDir": "/etc/kueue/metrics/certs"},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "clientConnection": {"qps": 50, "burst": 100},
        "integrations": {"frameworks": ["batch/job"], "externalFrameworks": [FRAMEWORK]},
        "multiKueue": {"externalFrameworks": [{"name": FRAMEWORK}]},
    }


def workload_definition() -> dict[str, Any]:
    """The custom resource definition of Workloads with its stored version only, which works without Kueue."""
    [definition] = _documents(_components() / "crd" / "bases" / "kueue.x-k8s.io_workloads.yaml")
    definition["spec"]["versions"] = [version for version in definition["spec"]["versions"] if version["storage"]]
    return definition


def _components() -> Path:
    """The directory of the manifests in the Go module."""
    return gobuild.module_directory(KUEUE_MODULE, KUEUE) / "config" / "components"


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _apply(kubeconfig: Path, objects: list[dict[str, Any]], *flags: str) -> None:
    content = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    _kubectl(kubeconfig, "apply", *flags, "--filename=-", stdin=content)


def _kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> None:
    run(binary("kubectl"), f"--kubeconfig={kubeconfig}", *arguments, stdin=stdin)
