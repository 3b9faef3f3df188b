"""The files a worker's components read, as paths below the worker's /run and their text."""

import json

from . import network, pause
from .cgroups import ROOT
from .network import Node

REGISTRY = f"{network.HOST}:5000"
_CNI_PLUGINS = "/usr/lib/cni"  # where Debian has them


def containerd(node: Node) -> dict[str, str]:
    """containerd with its pod network, and plain HTTP to the cluster's own registry."""
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


# restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE may not protect a container more than itself.
# disabled_plugins: the one that makes /opt/containerd, outside the node's own directories.
# discard_unpacked_layers: an image with torch is kept once a node, and not a second time as it was packed.
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
    """Kubelet and kube-proxy."""
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
        # Both nodes share one disk with everything else on it: never evict pods or images because that is full.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # The default lies in /usr, outside the node's own directories.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }
    kube_proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": "/run/kubernetes/kube-proxy.kubeconfig"},
        "clusterCIDR": network.PODS,
        "hostnameOverride": node.name,
        # The table of connections belongs to the whole machine: leave its size alone.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
    return {
        "kubernetes/kubelet.json": json.dumps(kubelet, indent=1),
        "kubernetes/kube-proxy.json": json.dumps(kube_proxy, indent=1),
        "kubernetes/resolv.conf": f"nameserver {network.HOST}\n",
    }
