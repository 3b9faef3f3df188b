"""A real two-node Kubernetes cluster on one machine, installed from package registries only.

It tests the operator against the API server, scheduler, kubelets and container runtime that users run, on machines without
Docker, kind or access to an image registry. Start it with ``python -m devcluster up`` (as root).
"""
