"""A real two-node Kubernetes cluster on one bare machine, made from package registries alone.

It exists so that the operator is tested against the API server, scheduler, kubelets and container runtime that users run,
where neither Docker nor kind nor a hub of images can be had. Run it with ``python -m devcluster up`` (as root).
"""
