"""Advice for each condition reason, from which the page docs/troubleshooting/conditions.md is generated.

A new constant without advice fails a unit test.
"""

from __future__ import annotations

from typing import NamedTuple

from finetune_operator.api.conditions import ConditionReason


class Advice(NamedTuple):
    """The text of one entry: where a person meets the reason, what causes it, and what to do about it."""

    shown_in: str
    cause: str
    remedy: str


CONDITION_ADVICE: dict[ConditionReason, Advice] = {
    ConditionReason.SUSPENDED: Advice(
        "conditions `Suspended`, `PodsReady` and `Running`; a Normal event",
        "`spec.runPolicy.suspend` is `true`. The pods store a checkpoint and stop.",
        "Set `spec.runPolicy.suspend: false` to continue from the newest checkpoint.",
    ),
    ConditionReason.RESUMED: Advice(
        "condition `Suspended` (False); a Normal event",
        "`spec.runPolicy.suspend` was set back to `false`. New pods start and load the newest checkpoint.",
        "Nothing. `activeDeadlineSeconds` starts again from zero.",
    ),
    ConditionReason.QUEUED: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False)",
        "The job waits in the Kueue LocalQueue of `spec.scheduling.queueName`. The message quotes Kueue, which names the "
        "missing resource.",
        "Wait, or look at the queue with `kubectl describe clusterqueue`. A higher `spec.scheduling.workloadPriorityClass` "
        "moves the job forward.",
    ),
    ConditionReason.ADMITTED: Advice(
        "condition `QuotaReserved` (True); a Normal event",
        "Kueue admitted all pods of the job.",
        "Nothing; this is the normal state of a running job that has a queue.",
    ),
    ConditionReason.EVICTED: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False); a Warning event",
        "Kueue takes the quota of the job back: a job of higher priority needs it, the queue was stopped, or the pods were not "
        "ready in time. The pods store a checkpoint and stop.",
        "Nothing. The job queues again and continues from its newest checkpoint.",
    ),
    ConditionReason.DEACTIVATED: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False)",
        "Kueue or an administrator took the job's Workload out of its queue: an admission check rejected it, or its pods were "
        "not ready in time too often. The message quotes the cause.",
        "Remove the cause, then set `spec.active: true` in the Workload that the message names.",
    ),
    ConditionReason.INADMISSIBLE: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False)",
        "The LocalQueue or its ClusterQueue does not exist or is stopped.",
        "Create it, or suspend the job, correct `spec.scheduling.queueName` and resume the job.",
    ),
    ConditionReason.KUEUE_NOT_INSTALLED: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False)",
        "The job names a queue, but the cluster does not serve Kueue's API, or the operator may not read it.",
        "Install Kueue 0.17 or newer. The job enters its queue within five minutes. Without Kueue, remove "
        "`spec.scheduling.queueName`.",
    ),
    ConditionReason.PRIORITY_CLASS_NOT_FOUND: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False)",
        "The priority class that the message names does not exist, so the job cannot enter its queue.",
        "Create the class or correct its name. The job enters its queue without further action.",
    ),
    ConditionReason.WORKLOAD_MISMATCH: Advice(
        "conditions `QuotaReserved` and `PodsReady` (False)",
        "The job's label `kueue.x-k8s.io/prebuilt-workload-name` names a Workload that belongs to another object, or that asks "
        "for another number of pods or other resources than the job. The Workload is left as it is.",
        "Remove the label, or let it name a Workload for this job. If MultiKueue set it, give the operators of both clusters "
        "the same profiles, from which the resources of the pods may come.",
    ),
    ConditionReason.RESOURCE_FLAVOR_NOT_FOUND: Advice(
        "condition `PodsReady` (False)",
        "Kueue admitted the job to a ResourceFlavor that the operator cannot read, so it is unknown on which nodes the pods "
        "should run.",
        "Grant the operator's service account `get` on `resourceflavors.kueue.x-k8s.io`; the chart does.",
    ),
    ConditionReason.PODS_STARTING: Advice(
        "condition `PodsReady` (False)",
        "Fewer pods are ready than `spec.workers.nodes`, and none of them reports an error. A pod becomes ready when its agent "
        "has started the ranks.",
        "Wait. If it takes longer than pulling the image should, run `kubectl describe pod NAME-0`: the scheduler and the "
        "kubelet explain there what they wait for.",
    ),
    ConditionReason.PODS_READY: Advice(
        "condition `PodsReady` (True)", "Every pod of the job is ready.", "Nothing; this is the normal state of a running job."
    ),
    ConditionReason.RESIZING: Advice(
        "conditions `Restarting` (True) and `Running` (False)",
        "The number of nodes of an elastic job changes: pods are missing, or are there again, or `spec.workers.nodes` was "
        "changed. If all ranks run, they store a checkpoint first; otherwise the newest one is used.",
        "Wait; the run goes on from its checkpoint. No retry budget is spent.",
    ),
    ConditionReason.RUNNING_SMALLER: Advice(
        "condition `Degraded` (True)",
        "An elastic job uses fewer nodes than `spec.workers.nodes`, because pods were missing for longer than "
        "`spec.runPolicy.elastic.shrinkAfterSeconds`. The global batch is the same. The message names the cause, and when pods "
        "for more nodes are created.",
        "Nothing, if the cause passes by itself: the run grows again. To give it more nodes, free or add some; to let it be "
        "content with fewer, run `kubectl scale ftj NAME --replicas=N`.",
    ),
    ConditionReason.ADMITTED_SMALLER: Advice(
        "condition `Degraded` (True)",
        "An elastic job was scaled to more nodes than those with which its queue has admitted it. It uses the largest possible "
        "number within its quota.",
        "Set `spec.runPolicy.suspend: true`, and `false` when its pods have stopped: the queue then admits the job with all of "
        "its nodes. Or scale it to the number that it uses.",
    ),
    ConditionReason.LIMITED_BY_PROFILE: Advice(
        "condition `Degraded` (True)",
        "`spec.workers.nodes` of an elastic job is larger than its [profile](../guides/profiles.md) allows. The run uses the "
        "largest possible number of nodes within the limit.",
        "Scale the job to that number with `kubectl scale ftj NAME --replicas=N`, or ask the administrator to allow more.",
    ),
    ConditionReason.ALL_NODES: Advice(
        "condition `Degraded` (False)", "An elastic job uses all of its nodes again.", "Nothing; this is the normal state."
    ),
    ConditionReason.PODS_NOT_READY: Advice(
        "condition `PodsReady` (False)",
        "A rank failed and the agents restart all ranks inside their pods. No pod was lost.",
        "Wait; a restart takes seconds. If it happens again and again, `kubectl finetune logs NAME` shows why the rank failed. "
        "After three restarts without a new step the pod fails, which counts towards `spec.runPolicy.backoffLimit`.",
    ),
    ConditionReason.SECRET_NOT_FOUND: Advice(
        "condition `PodsReady` (False)",
        "A `credentials` field names a Secret that does not exist in the job's namespace. The message names the field.",
        "Create the Secret (`kubectl apply -f manifests/samples/storage-secret.yaml` is an example) or correct the name while "
        "the job is suspended. The job starts without further action once the Secret exists.",
    ),
    ConditionReason.NAME_CONFLICT: Advice(
        "condition `PodsReady` (False)",
        "A Pod, NetworkPolicy or PodGroup with the name that this job needs, or the Service `finetune-trainers` of its "
        "namespace, exists already and belongs to something else.",
        "Delete that object, or apply the job under another `metadata.name`.",
    ),
    ConditionReason.PREVIOUS_PODS_TERMINATING: Advice(
        "condition `PodsReady` (False)",
        "A job of the same name was deleted a moment ago, or this job was changed while it was suspended, and an earlier pod "
        "has not stopped yet.",
        "Wait at most `spec.runPolicy.terminationGracePeriodSeconds` of the earlier pod. If the node of that pod is gone, the "
        "pod is removed by force afterwards.",
    ),
    ConditionReason.CREATE_REJECTED: Advice(
        "condition `PodsReady` (False)",
        "The API server rejected an object of the job: an admission webhook said no, or `spec.workers.template` holds a value "
        "that Kubernetes does not accept. The message quotes the API server.",
        "Do what the quoted message asks for. The operator tries again with growing pauses of at most five minutes.",
    ),
    ConditionReason.QUOTA_EXCEEDED: Advice(
        "condition `PodsReady` (False)",
        "A ResourceQuota of the namespace has no room for an object of the job. The message quotes the API server: which "
        "quota, and what is requested, used and allowed.",
        "Raise the quota, lower `spec.workers.resources`, or wait until another job ends. The operator tries again with "
        "growing pauses of at most five minutes.",
    ),
    ConditionReason.VOLUME_NOT_FOUND: Advice(
        "condition `PodsReady` (False)",
        "A pod needs a PersistentVolumeClaim, ConfigMap or Secret that does not exist in the job's namespace. The message "
        "names it.",
        "Create the object, or correct its name in `spec.workers.template.volumes` or in the `pvc://` URI. The pods start "
        "without further action once it exists.",
    ),
    ConditionReason.PODS_RELEASED: Advice(
        "a Warning event; condition `PodsReady` repeats it with the reason why a pod could not start",
        "A pod could not start for `spec.runPolicy.pendingTimeoutSeconds` while others held resources, or was deleted several "
        "times before it ran. All pods of the job were deleted, so that other jobs can use the resources, and are created "
        "again after a pause.",
        "Remove what the message names: missing resources, an image that cannot be pulled, a missing volume. The pauses grow "
        "from about 30 seconds to about 30 minutes; a suspension and its end start over at once.",
    ),
    ConditionReason.PENDING_RETRY_LIMIT_EXCEEDED: Advice(
        "condition `Failed`; a Warning event",
        "The pods were created again as often as `spec.runPolicy.pendingRetryLimit` allows, and could not start each time. The "
        "message repeats the last cause.",
        "Remove the cause. Then delete the job and apply it again: it resumes from its newest checkpoint.",
    ),
    ConditionReason.BACKING_OFF: Advice(
        "condition `PodsReady` (False)",
        "Pods failed several times in a row. The next attempt waits about 10 seconds, then twice as long each time, up to "
        "about five minutes; the pauses of different jobs differ. The message gives the time of the next attempt.",
        "Read the cause in `status.failure` or with `kubectl finetune status NAME`. The delay starts over after ten "
        "minutes without a failure.",
    ),
    ConditionReason.DISRUPTED: Advice(
        "conditions `Restarting` and `Running`; a Warning event",
        "Kubernetes took the pod away: a drain, an eviction because the node was low on a resource, a preemption by a more "
        "important pod, a lost node, or a restart of the node. The message quotes the reason that Kubernetes gave.",
        "Nothing. The pod is replaced, its peers wait, and training continues from the newest checkpoint. Disruptions do not "
        "count towards `spec.runPolicy.backoffLimit`, unless there are more than `spec.runPolicy.maxDisruptionsPerHour` "
        "without a newer checkpoint. On spot nodes, keep `checkpoint.everyMinutes` short.",
    ),
    ConditionReason.NODE_LOST: Advice(
        "conditions `PodsReady`, `Running` and later `Restarting`; a Warning event",
        "Kubernetes does not hear from the node of a pod, because the machine, its network or its kubelet failed. The message "
        "names the node and the pod. If the node does not return within `spec.runPolicy.nodeLostSeconds` and the pod does not "
        "respond to the operator, the pod is replaced on another node. This does not count towards "
        "`spec.runPolicy.backoffLimit`.",
        "Nothing for the job. Repair or remove the node (`kubectl describe node NODE`). If the message says that no other node "
        "is ready, the pods wait for a node.",
    ),
    ConditionReason.KUBELET_SILENT: Advice(
        "condition `PodsReady` (False); a Warning event",
        "Kubernetes does not hear from the node of a pod, but the pod still responds to the operator. Its kubelet has failed "
        "or cannot reach the API server; training goes on, and the pod is left alone.",
        "Repair the kubelet of the named node. Until then Kubernetes cannot stop or inspect pods there.",
    ),
    ConditionReason.POD_DELETED: Advice(
        "conditions `Restarting` and `Running`; a Warning event",
        "Something other than the operator deleted a pod of the job.",
        "Nothing; the pod is replaced, and the deletion does not count towards `spec.runPolicy.backoffLimit`. To stop a job, "
        "set `spec.runPolicy.suspend: true` or delete the job.",
    ),
    ConditionReason.DISK_LIMIT_EXCEEDED: Advice(
        "conditions `Restarting`, `Running` and, after too many failures, `Failed`; a Warning event",
        "The kubelet evicted the pod because a container or a volume exceeded its own limit of disk space. The message names "
        "it.",
        "Raise the field in the message: `workers.resources.limits.ephemeral-storage`, `workers.scratch.size` or the "
        "`emptyDir.sizeLimit` of a volume of the template. The data that a run prepares, its snapshots and downloaded models "
        "need space in `/work`. The replacement starts with an empty disk.",
    ),
    ConditionReason.POD_REJECTED: Advice(
        "conditions `Restarting`, `Running` and, after too many failures, `Failed`; a Warning event",
        "The scheduler found a node for the pod, and the kubelet of that node does not accept its fields: for example CPUs "
        "that its topology manager cannot align, or a sysctl that it forbids. The message quotes the kubelet.",
        "Change the field that the message names, or choose other nodes with `workers.template.nodeSelector`. The replacement "
        "may run on another node, so the job fails only after `spec.runPolicy.backoffLimit`.",
    ),
    ConditionReason.START_ERROR: Advice(
        "conditions `Restarting`, `Running` and, after too many failures, `Failed`; a Warning event",
        "The container runtime could not execute the command of the trainer container: the image has no `python` with the "
        "trainer, or a device or a mount is missing on the node. The message quotes the runtime.",
        "Use an image that is built from the trainer image, or repair the node that the message names.",
    ),
    ConditionReason.OUTCOME_MISSING: Advice(
        "conditions `Restarting`, `Running` and, after too many failures, `Failed`; a Warning event",
        "The trainer container exited with code 0, but did not report that the run is complete. Its image has another program "
        "in place of the trainer, or something ended the trainer.",
        "Use an image that is built from the trainer image, and read the pod's log. The job is not Succeeded, because no model "
        "was stored.",
    ),
    ConditionReason.INIT_CONTAINER_FAILED: Advice(
        "conditions `Restarting`, `Running` and, after too many failures, `Failed`; a Warning event",
        "An init container failed, so that the trainer container never started. The message names the container, its exit code "
        "and the last line of its log.",
        "Run `kubectl logs POD -c CONTAINER`. If a webhook injected the init container, ask the people who run it.",
    ),
    ConditionReason.RECOVERED: Advice(
        "condition `Restarting` (False)",
        "All pods are ready again after a failure or a disruption. The message repeats what had happened.",
        "Nothing.",
    ),
    ConditionReason.RANKS_RESTARTED: Advice(
        "a Warning event; condition `Running` repeats it",
        "A rank failed for a reason that a restart may remove, and all ranks were restarted in the same pods. The message has "
        "the reason, the rank and, after a hang, where in the code it was.",
        "Nothing, unless it happens again; the entry of the reason on [Exit codes](exit-codes.md) helps then.",
    ),
    ConditionReason.BACKOFF_LIMIT_EXCEEDED: Advice(
        "condition `Failed`; a Warning event",
        "Pods failed more often than `spec.runPolicy.backoffLimit` allows. The message repeats the last failure.",
        "Remove the cause; the entry of the last failure's reason on [Exit codes](exit-codes.md) helps. Then delete the job "
        "and apply it again: it resumes from its newest checkpoint.",
    ),
    ConditionReason.DEADLINE_EXCEEDED: Advice(
        "condition `Failed`; a Warning event",
        "The job was active for longer than `spec.runPolicy.activeDeadlineSeconds`.",
        "Apply the job again with a longer deadline, or without one. It resumes from its newest checkpoint.",
    ),
    ConditionReason.INVALID_SPEC: Advice(
        "condition `PodsReady` (Unknown)",
        "The operator was replaced by a version that does not accept the document of a job that was accepted before. The job "
        "is left alone: pods that run keep running, but a lost pod is not replaced, and a suspended job stays suspended.",
        "Install the operator version that accepted the job and let the job end, or apply a corrected document under another "
        "name.",
    ),
    ConditionReason.REFUSED_BY_PROFILE: Advice(
        "condition `PodsReady` (Unknown)",
        "An administrator changed the [profile](../guides/profiles.md) of a job that was accepted before, and it does not "
        "allow any more what the message names. The job is left alone: pods that run keep running, but a lost pod is not "
        "replaced, and a suspended job stays suspended.",
        "Ask the administrator to allow the value until the job has ended, or delete the job and apply a document that the "
        "profile allows: it resumes from its newest checkpoint.",
    ),
    ConditionReason.STRAGGLER: Advice(
        "a Warning event",
        "A rank needs at least 1.5 times as long for its own work in a step, loading data and forward passes, as the median of "
        "the other ranks, which wait for it in every step. `status.stragglers` lists all such ranks. With ZeRO-3, forward "
        "passes wait for other ranks, so that only slow data loading is found.",
        "Look at the node in the message: other work on its cores, the clock and temperature of its GPU (`nvidia-smi -q -d "
        "PERFORMANCE`), its disk. To move the pod, cordon the node and delete the pod. The operator does not stop the rank.",
    ),
    ConditionReason.LOSS_ANOMALY: Advice(
        "a Warning event; the same sentence and the counts are in `status.lossAnomalies`",
        "The loss or the norm of the gradient was NaN or infinite, or the loss a spike, and `spec.training.lossAnomaly.action` "
        "made the run skip the step or return to a checkpoint. The message names the step and the rows of the micro-batch.",
        "Look at the rows in the message. If the same rows come back in every epoch, correct or remove them; if it is always "
        "others, lower `training.optimizer.learningRate`. [Survive loss anomalies](../how-to/loss-anomalies.md) explains the "
        "actions.",
    ),
    ConditionReason.NODE_AVOIDED: Advice(
        "a Warning event; the node is in `status.avoidedNodes`",
        "A node failed the check of `spec.runPolicy.preflight`. Its pod is replaced, and for `avoidNodesSeconds` no pod of "
        "this job is created there. The message has the measure, its value and the limit.",
        "Look at the node: GPU clocks and temperature (`nvidia-smi -q -d PERFORMANCE`), memory errors "
        "(`nvidia-smi -q -d ECC`), the speed of its network link. Cordon it if it is broken: other jobs still use it.",
    ),
    ConditionReason.AVOIDED_NODES_NEEDED: Advice(
        "a Warning event",
        "A pod could not be scheduled for two minutes while nodes that had failed the preflight check were avoided. They may "
        "now be used if no other node has room; the check is repeated there.",
        "Repair the nodes in the message, or add others.",
    ),
    ConditionReason.DATA_FINDING: Advice(
        "a Warning event; the same sentence is in `status.data.findings`",
        "A check of `spec.data.checks` with the policy `Warn` found something, for example duplicate rows, rows that are also "
        "in the evaluation data, or personal data.",
        "Decide whether the finding matters. `Drop`, `Scrub` or `Fail` instead of `Warn` removes the rows or ends the run; "
        "`Ignore` switches the check off. [Duplicates, leakage and personal data](../how-to/clean-data.md) has examples.",
    ),
    ConditionReason.CHECKPOINT_SAVED: Advice(
        "condition `CheckpointHealthy` (True)", "The newest checkpoint is committed; the message names its step.", "Nothing."
    ),
    ConditionReason.CHECKPOINT_SAVE_FAILED: Advice(
        "condition `CheckpointHealthy` (False)",
        "The newest checkpoint could not be written. Training continues and the next checkpoint is tried at its usual time.",
        "Make the storage reachable again, or make room where the message says; it has the address or the file, and the error. "
        "`workers.scratch.size`, the size of `/work`, can change while the job is suspended. Until then a failure costs the "
        "work since the last stored checkpoint.",
    ),
    ConditionReason.FINISHED: Advice(
        "conditions `PodsReady`, `Running`, `Restarting` and `Suspended` (False)",
        "The job is over, so these conditions no longer apply. `Complete` or `Failed` holds the result.",
        "Nothing.",
    ),
    ConditionReason.POD_FORCE_DELETED: Advice(
        "a Warning event",
        "A pod did not stop within its grace period, most often because its node is unreachable. The operator removed it from "
        "the API server without waiting for the node.",
        "Look at the node that the message names. A process that still runs there cannot commit checkpoints any more.",
    ),
    ConditionReason.STATUS_UNREADABLE: Advice(
        "column REASON and a Warning event; the metric `finetune_operator_job_status_unreadable` counts such jobs",
        "Another version of the operator wrote the status of this job, and this version cannot read it, for example after "
        "`helm rollback`. The job is left alone: its pods keep running, and nothing is created, deleted or decided.",
        "Install the version of the operator that wrote the status, or a newer one.",
    ),
}
