"""Configuration files of a worker's components: path below the worker's /run -> text."""

import json

from . import network, pause
from .cgroups import ROOT
from .network import Node

REGISTRY = f"{network.HOST}:5000"
_CNI_PLUGINS = "/usr/lib/cni"  # the path of the Debian package


def containerd(node: Node) -> dict[str, str]:
    """Files of containerd: its settings, the pod network, and plain HTTP for the registry of the cluster."""
    pods = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni/addresses",
                    "ranges": [[{"subnet": node.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    return {
        "containerd/config.toml": _CONTAINERD,
        f"containerd/certs.d/{REGISTRY}/hosts.toml": f'server = "http://{REGISTRY}"\n',
        "cni/net.d/pods.conflist": json.dumps(pods, indent=1),
    }


# restrict_oom_score_adj: without CAP_SYS_RESOURCE a container cannot get a lower OOM score than containerd.
# disabled_plugins: this plugin creates /opt/containerd, which is outside the private directories of the node.
# discard_unpacked_layers: compressed layers are deleted after unpacking, which matters for images with torch.
_CONTAINERD = f"""\
version = 3
disabled_plugins = ["io.containerd.internal.v1.opt"]

[plugins.'io.containerd.cri.v1.images']
discard_unpacked_layers = true
pinned_images.sandbox = "{pause.image()}"
registry.config_path = "/run/containerd/certs.d"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options.SystemdCgroup = false

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{_CNI_PLUGINS}"]
conf_dir = "/run/cni/net.d"
use_internal_loopback = true
"""


def kubernetes(node: Node) -> dict[str, str]:
    """Files of kubelet and kube-proxy."""
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": "/run/kubernetes/ca.crt"}},
        "tlsCertFile": "/run/kubernetes/kubelet.crt",
        "tlsPrivateKeyFile": "/run/kubernetes/kubelet.key",
        "clusterDNS": [network.HOST],
        "clusterDomain": network.DNS_DOMAIN,
        "resolvConf": "/run/kubernetes/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{ROOT}/{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # Both nodes share the disk of the machine, so a full disk must not evict pods or images.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # The default is in /usr, outside the private directories of the node.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
    kube_proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": "/run/kubernetes/kube-proxy.kubeconfig"},
        "clusterCIDR": network.PODS,
        "hostnameOverride": node.name,
        # The connection table belongs to the whole machine: do not change its size.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
    return {
        "kubernetes/kubelet.json": json.dumps(kubelet, indent=1),
        "kubernetes/kube-proxy.json": json.dumps(kube_proxy, indent=1),
        "kubernetes/resolv.conf": f"nameserver {network.HOST}\n",
    }
