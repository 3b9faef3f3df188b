"""etcd, API server, controller manager, scheduler and cluster DNS, as processes of the host.

Settings that affect an operator are those of kubeadm: client rate limits, grace periods and admission are the defaults.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from . import components, network, paths, probe, process
from .certificates import API_SERVER, Authority, new_key, private_pem, public_pem, write_pair
from .errors import run
from .gobuild import binary

PKI = paths.STATE / "pki"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
# On loopback because etcd runs without TLS, and on unusual ports because another etcd may run on the host.
_ETCD, _ETCD_PEERS = "http://127.0.0.1:21379", "http://127.0.0.1:21380"

# Permissions of CoreDNS and Prometheus, for which Kubernetes has no default roles.
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
    """Write the certificates and kubeconfig files of the components on the host."""
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
    """Path of the kubeconfig of a component on the host; "admin" is that of the user."""
    return paths.STATE / f"{name}.kubeconfig"


def start_api() -> None:
    """Start etcd and the API server, which waits for etcd by itself."""
    process.start("etcd", components.etcd(paths.data() / "etcd", _ETCD, _ETCD_PEERS))
    process.start(
        "kube-apiserver",
        components.api_server(
            PKI,
            _ETCD,
            network.HOST,
            network.SERVICES,
            f"https://kubernetes.default.svc.{network.DNS_DOMAIN}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
            f"--kubelet-client-certificate={PKI / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={PKI / 'apiserver-kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            # The host has no kube-proxy, so webhooks are called at the addresses of their pods.
            "--enable-aggregator-routing=true",
        ),
    )


def wait_for_api() -> None:
    """Wait until the API server is ready, then create the roles of the components on the host."""
    process.wait_until("kube-apiserver", api_is_ready)
    run(binary("kubectl"), f"--kubeconfig={paths.KUBECONFIG}", "apply", "--filename=-", stdin=_ROLES)


def start_controllers() -> None:
    """Start the controller manager, the scheduler and DNS."""
    plugins = paths.STATE / "volume-plugins"
    for name, command in (
        ("kube-controller-manager", components.controller_manager(PKI, kubeconfig("kube-controller-manager"), plugins)),
        ("kube-scheduler", components.scheduler(PKI, kubeconfig("kube-scheduler"))),
    ):
        process.start(name, command)
    corefile = paths.STATE / "Corefile"
    # TTL 0: the new address of a replaced pod resolves at once.
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
    """Wait until the controller manager, the scheduler and DNS are healthy."""
    process.wait_until("kube-controller-manager", partial(probe.responds_unverified, "https://127.0.0.1:10257/healthz"))
    process.wait_until("kube-scheduler", partial(probe.responds_unverified, "https://127.0.0.1:10259/healthz"))
    process.wait_until("coredns", partial(probe.responds, f"http://{network.HOST}:8181/ready"))


def api_is_ready() -> bool:
    """Whether the API server reports that it is ready."""
    return (PKI / "admin.key").exists() and _get("/readyz") is not None


def get(path: str) -> dict[str, Any]:
    """Get an object from the API server; an empty dictionary if it does not exist."""
    response = _get(path)
    return json.loads(response) if response else {}


def _get(path: str) -> str | None:
    return probe.fetch(API_SERVER + path, probe.client_context(PKI / "ca.crt", PKI / "admin.crt", PKI / "admin.key"))
