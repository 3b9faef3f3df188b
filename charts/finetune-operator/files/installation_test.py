"""`helm test`: the CRD is served, a replica of the operator is the leader, and the operator is ready."""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API_SERVER = "https://kubernetes.default.svc"
SECONDS = 60  # for the operator to start and to elect a leader


def get(url: str) -> str:
    """The response to a request, with the token of the service account if it is for the API server."""
    request = urllib.request.Request(url)
    context = None
    if url.startswith(API_SERVER):
        request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=5, context=context) as response:
        return str(response.read().decode())


def check_crd() -> str:
    """The API server serves FineTuneJobs."""
    resources = json.loads(get(f"{API_SERVER}/apis/finetune-operator.io/v1alpha1"))["resources"]
    if "finetunejobs" not in [resource["name"] for resource in resources]:
        raise RuntimeError("the API group finetune-operator.io has no finetunejobs: install the CRD")
    return "the API server serves finetunejobs"


def check_leader() -> str:
    """The Lease has a holder."""
    namespace, _, name = os.environ["LEASE"].partition("/")
    lease = json.loads(get(f"{API_SERVER}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"))
    if not lease["spec"].get("holderIdentity"):
        raise RuntimeError(f"the Lease {name} has no holder: check the log of the operator's pods")
    return f"{lease['spec']['holderIdentity']} is the leader"


def check_readiness() -> str:
    """The operator's Service answers /readyz."""
    if "OPERATOR" not in os.environ:
        return "service.enabled is false: /readyz was not requested"
    return f"{os.environ['OPERATOR']}/readyz answers {get(os.environ['OPERATOR'] + '/readyz').strip()!r}"


def main() -> None:
    """Run all checks, each until it succeeds or the time is over."""
    deadline = time.monotonic() + SECONDS
    for check in (check_crd, check_leader, check_readiness):
        while True:
            try:
                print(check(), flush=True)
                break
            except Exception as error:
                if time.monotonic() > deadline:
                    sys.exit(f"{check.__name__} failed: {error}")
            time.sleep(2)


if __name__ == "__main__":
    main()
