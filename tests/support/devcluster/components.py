"""Command lines of the components that every control plane has; `flags` are those of one control plane only."""

from pathlib import Path

from .gobuild import binary

GANG_SCHEDULING = "--feature-gates=GenericWorkload=true"  # beta in this version, so it is off unless it is asked for
POD_GROUPS = (GANG_SCHEDULING, "--runtime-config=scheduling.k8s.io/v1beta1=true")  # for an API server
Command = list[str | Path]


def etcd(data: Path, clients: str, peers: str) -> Command:
    """One member without TLS and without a safe disk; `clients` and `peers` are its URLs."""
    return [
        binary("etcd"),
        f"--data-dir={data}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def api_server(pki: Path, etcd_url: str, address: str, services: str, issuer: str, *flags: str) -> Command:
    """`services` is the address range of services, and `pki` the folder of the certificates and of the signing key."""
    return [
        binary("kube-apiserver"),
        f"--etcd-servers={etcd_url}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--service-cluster-ip-range={services}",
        *POD_GROUPS,
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--service-account-issuer={issuer}",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        f"--cert-dir={pki}",  # the default is a folder of the host
        *flags,
    ]


def controller_manager(pki: Path, kubeconfig: Path, volume_plugins: Path, *flags: str) -> Command:
    """The controller manager, which listens on the loopback address."""
    return [
        binary("kube-controller-manager"),
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--use-service-account-credentials=true",
        GANG_SCHEDULING,
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--flex-volume-plugin-dir={volume_plugins}",
        f"--cert-dir={pki}",
        *flags,
    ]


def scheduler(pki: Path, kubeconfig: Path, *flags: str) -> Command:
    """The scheduler, which listens on the loopback address."""
    return [
        binary("kube-scheduler"),
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        GANG_SCHEDULING,
        f"--cert-dir={pki}",
        *flags,
    ]
