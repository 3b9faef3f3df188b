"""etcd, API server, controller manager, scheduler and cluster DNS, as processes of the host.

Their settings are those of kubeadm where they matter to an operator: client rates, grace periods and admission are default.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from . import network, paths, probe, process
from .certificates import API_SERVER, Authority, new_key, private_pem, public_pem, write_pair
from .errors import run
from .gobuild import binary

PKI = paths.STATE / "pki"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
# Loopback, and not the usual ports: etcd speaks without TLS here and may stand beside another one.
_ETCD, _ETCD_PEERS = "http://127.0.0.1:21379", "http://127.0.0.1:21380"

# What the host's own components may do, beyond the roles Kubernetes brings along.
_ROLES = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "devcluster:discovery"}
rules:
- apiGroups: ["", discovery.k8s.io]
  resources: [endpoints, endpointslices, services, pods, namespaces, nodes]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "devcluster:discovery"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "devcluster:discovery"}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "devcluster:coredns"}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "devcluster:prometheus"}
"""


def write_credentials(authority: Authority) -> None:
    """Certificates and kubeconfig files of the host's components."""
    paths.replace_file(PKI / "ca.crt", authority.pem)
    service = "kubernetes.default.svc"
    names = (network.HOST, "127.0.0.1", network.API_SERVICE, "localhost", "kubernetes", "kubernetes.default", service)
    write_pair(PKI, "apiserver", authority.issue("kube-apiserver", addresses=(*names, f"{service}.{network.DNS_DOMAIN}")))
    write_pair(PKI, "apiserver-kubelet-client", authority.issue("kube-apiserver-kubelet-client", "system:masters"))
    write_pair(PKI, "admin", authority.issue("admin", "system:masters"))
    signing = new_key()
    paths.replace_file(PKI / "service-accounts.key", private_pem(signing), mode=0o600)
    paths.replace_file(PKI / "service-accounts.pub", public_pem(signing))
    for name, user, organization in (
        ("admin", "admin", "system:masters"),
        ("kube-controller-manager", "system:kube-controller-manager", ""),
        ("kube-scheduler", "system:kube-scheduler", ""),
        ("coredns", "devcluster:coredns", ""),
        ("prometheus", "devcluster:prometheus", ""),
    ):
        paths.replace_file(kubeconfig(name), authority.kubeconfig(user, organization), mode=0o600)


def kubeconfig(name: str) -> Path:
    """The kubeconfig of one of the host's components; "admin" is the user's."""
    return paths.STATE / f"{name}.kubeconfig"


def start_api() -> None:
    """Start etcd and the API server; they find each other."""
    process.start(
        "etcd",
        [
            binary("etcd"),
            f"--data-dir={paths.data() / 'etcd'}",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            f"--listen-peer-urls={_ETCD_PEERS}",
            f"--initial-advertise-peer-urls={_ETCD_PEERS}",
            f"--initial-cluster=default={_ETCD_PEERS}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )
    process.start(
        "kube-apiserver",
        [
            binary("kube-apiserver"),
            f"--etcd-servers={_ETCD}",
            f"--bind-address={network.HOST}",
            f"--advertise-address={network.HOST}",
            f"--service-cluster-ip-range={network.SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={PKI / 'ca.crt'}",
            f"--tls-cert-file={PKI / 'apiserver.crt'}",
            f"--tls-private-key-file={PKI / 'apiserver.key'}",
            f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
            f"--kubelet-client-certificate={PKI / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={PKI / 'apiserver-kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{network.DNS_DOMAIN}",
            f"--service-account-key-file={PKI / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={PKI / 'service-accounts.key'}",
            # The host has no kube-proxy, so webhooks are called at their pods' addresses.
            "--enable-aggregator-routing=true",
            # Its own directory: the default lies in the working directory or /var/run/kubernetes.
            f"--cert-dir={PKI}",
        ],
    )


def wait_for_api() -> None:
    """Return when the API server takes requests and the host's components have their roles."""
    process.wait_until("kube-apiserver", api_is_ready)
    run(binary("kubectl"), f"--kubeconfig={paths.KUBECONFIG}", "apply", "--filename=-", stdin=_ROLES)


def start_controllers() -> None:
    """Start what watches the API: controllers, scheduler and DNS."""
    process.start(
        "kube-controller-manager",
        [
            binary("kube-controller-manager"),
            f"--kubeconfig={kubeconfig('kube-controller-manager')}",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={PKI / 'service-accounts.key'}",
            f"--root-ca-file={PKI / 'ca.crt'}",
            f"--flex-volume-plugin-dir={paths.STATE / 'volume-plugins'}",
            f"--cert-dir={PKI}",
        ],
    )
    process.start(
        "kube-scheduler",
        [
            binary("kube-scheduler"),
            f"--kubeconfig={kubeconfig('kube-scheduler')}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={PKI}",
        ],
    )
    corefile = paths.STATE / "Corefile"
    # TTL 0: a pod that is replaced under the same name is found again at once.
    paths.replace_file(
        corefile,
        f"""\
.:53 {{
    bind {network.HOST}
    errors
    ready {network.HOST}:8181
    kubernetes {network.DNS_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig("coredns")}
        ttl 0
    }}
}}
""",
    )
    process.start("coredns", [binary("coredns"), "-conf", corefile])


def wait_for_controllers() -> None:
    """Return when controllers, scheduler and DNS work."""
    process.wait_until("kube-controller-manager", partial(probe.answers_unverified, "https://127.0.0.1:10257/healthz"))
    process.wait_until("kube-scheduler", partial(probe.answers_unverified, "https://127.0.0.1:10259/healthz"))
    process.wait_until("coredns", partial(probe.answers, f"http://{network.HOST}:8181/ready"))


def api_is_ready() -> bool:
    """Whether the API server says it is ready to the administrator."""
    return (PKI / "admin.key").exists() and _get("/readyz") is not None


def get(path: str) -> dict[str, Any]:
    """An object of the API, or an empty one if it is not there."""
    answer = _get(path)
    return json.loads(answer) if answer else {}


def _get(path: str) -> str | None:
    return probe.fetch(API_SERVER + path, probe.trusting(PKI / "ca.crt", PKI / "admin.crt", PKI / "admin.key"))
