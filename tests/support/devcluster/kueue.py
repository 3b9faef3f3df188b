"""Kueue, as a process of the host; it starts when a test asks for it, because most tests need no queue.

Its custom resources and webhooks are those of the Go module. The webhooks are called at the address of the host, with a
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

from . import gobuild, network, paths, probe, process
from .certificates import Authority
from .errors import run
from .gobuild import KUEUE, KUEUE_MODULE, binary

_NAME = "kueue"
_STATE = paths.STATE / "kueue"
_CERTIFICATES = _STATE / "etc" / "kueue" / "metrics" / "certs"
_WEBHOOKS, _HEALTH, _METRICS = 19443, 18081, 18443
_KINDS = ("workloads", "clusterqueues", "cohorts", "resourceflavors")
_WEBHOOK_KINDS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")

# Kueue reads the certificate of its metrics from a fixed path, so $1 takes the place of /etc in a mount namespace of its own.
_ENTER = """
mount -n --bind "$1" /etc
shift
exec "$@"
"""


@contextmanager
def running() -> Iterator[None]:
    """Kueue for the duration of a test module. Delete the queues before the end, because nothing finalizes them afterwards."""
    start()
    try:
        yield
    finally:
        stop()


def start() -> None:
    """Build and start Kueue, unless it runs. The custom resources stay when it stops."""
    gobuild.build((KUEUE_MODULE,))
    if process.pid(_NAME) is not None:
        return
    authority = Authority()
    certificate, key = authority.issue(_NAME, addresses=(network.HOST,))
    paths.replace_file(_CERTIFICATES / "tls.crt", certificate)
    paths.replace_file(_CERTIFICATES / "tls.key", key, mode=0o600)
    paths.replace_file(_STATE / "configuration.json", json.dumps(_configuration(), indent=1))
    components = _module() / "config" / "components"
    definitions = [_definition(path, authority) for path in sorted((components / "crd" / "bases").glob("*.yaml"))]
    _apply(definitions, "--server-side", "--force-conflicts")
    names = [f"crd/{item['metadata']['name']}" for item in definitions]
    _kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
    process.start(
        _NAME,
        [
            *("env", f"KUBECONFIG={paths.KUBECONFIG}"),
            *("unshare", "--mount", "--propagation=private", "--", "/bin/sh", "-ec", _ENTER, "sh", _STATE / "etc"),
            binary("kueue"),
            f"--config={_STATE / 'configuration.json'}",
            # Its server listens on an address of all networks, and needs permissions of its own.
            "--feature-gates=VisibilityOnDemand=false",
            "--zap-log-level=2",
        ],
    )
    process.wait_until(_NAME, partial(probe.responds, f"http://{network.HOST}:{_HEALTH}/readyz"))
    _apply([_webhooks(item, authority) for item in _documents(components / "webhook" / "manifests.yaml")])


def stop() -> None:
    """Stop Kueue and remove its webhooks, without which the API server would reject every object that they cover."""
    for kind in _WEBHOOK_KINDS:
        _kubectl("delete", kind, f"{_NAME}-{kind}", "--ignore-not-found")
    process.stop(_NAME)


def _configuration() -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": "default",
        "health": {"healthProbeBindAddress": f"{network.HOST}:{_HEALTH}"},
        "metrics": {"bindAddress": f"{network.HOST}:{_METRICS}"},
        "webhook": {"host": network.HOST, "port": _WEBHOOKS, "certDir": "/etc/kueue/metrics/certs"},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "clientConnection": {"qps": 50, "burst": 100},
        "integrations": {"frameworks": ["batch/job"]},
    }


def _definition(path: Path, authority: Authority) -> dict[str, Any]:
    """A custom resource definition, whose versions Kueue converts if there are several."""
    [definition] = _documents(path)
    if len(definition["spec"]["versions"]) > 1:
        webhook = {"clientConfig": _client("/convert", authority), "conversionReviewVersions": ["v1"]}
        definition["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
    return definition


def _webhooks(configuration: dict[str, Any], authority: Authority) -> dict[str, Any]:
    """A webhook configuration, limited to Kueue's own kinds: tests queue no other objects than FineTuneJobs."""
    webhooks = []
    for webhook in configuration["webhooks"]:
        if any(resource.split("/")[0] in _KINDS for rule in webhook["rules"] for resource in rule["resources"]):
            path = webhook["clientConfig"]["service"]["path"]
            webhooks.append(webhook | {"clientConfig": _client(path, authority)})
    name = f"{_NAME}-{configuration['kind'].lower()}"
    return configuration | {"metadata": {"name": name}, "webhooks": webhooks}


def _client(path: str, authority: Authority) -> dict[str, str]:
    bundle = base64.b64encode(authority.pem.encode()).decode()
    return {"url": f"https://{network.HOST}:{_WEBHOOKS}{path}", "caBundle": bundle}


def _module() -> Path:
    """The directory of the Go module, which contains the manifests."""
    downloaded = json.loads(run(gobuild.find_go(), "mod", "download", "-json", KUEUE, cwd=KUEUE_MODULE.source))
    return Path(downloaded["Dir"])


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _apply(objects: list[dict[str, Any]], *flags: str) -> None:
    _kubectl("apply", *flags, "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def _kubectl(*arguments: str, stdin: str | None = None) -> None:
    run(binary("kubectl"), f"--kubeconfig={paths.KUBECONFIG}", *arguments, stdin=stdin)
