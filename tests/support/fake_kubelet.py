"""What kubelets write about pods on fake nodes."""

from __future__ import annotations

import json
from typing import Any

from tests.support.cluster_jobs import Jobs
from tests.support.pod_statuses import container, terminated

from finetune_trainer.protocol.outcome import Outcome, Reason


def write_status(jobs: Jobs, pod: str, status: dict[str, Any]) -> None:
    """Write the status of a pod."""
    jobs.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")


def complete(jobs: Jobs, name: str) -> None:
    """End the pods of a job, as its trainers would."""
    message = Outcome(reason=Reason.COMPLETE).model_dump_json(by_alias=True, exclude_none=True)
    status = {"phase": "Succeeded", "containerStatuses": [container("trainer", terminated(0, "Completed", message))]}
    for pod in jobs.pods(name):
        write_status(jobs, pod, status)
