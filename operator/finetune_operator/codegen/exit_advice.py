"""Advice for each exit code of the trainer, from which the page docs/troubleshooting/exit-codes.md is generated."""

from __future__ import annotations

from finetune_operator.codegen.condition_advice import Advice
from finetune_trainer.protocol.outcome import Reason

EXIT_ADVICE: dict[Reason, Advice] = {
    Reason.COMPLETE: Advice("condition `Complete`", "The run reached its last step, or stopped early.", "Nothing."),
    Reason.CRASHED: Advice(
        "conditions `Restarting`, `Running` and, after too many failures, `Failed`",
        "A process ended with an error that no other reason covers, or was killed by a signal.",
        "Read the traceback in the log. A process that was killed by signal 9 often ran out of memory: compare "
        "`workers.resources.limits.memory` with the memory use of the pod. Signal 7 can mean that `/dev/shm` is full: raise "
        "`workers.sharedMemory`. If the message says that the disk is full, raise `workers.scratch.size`.",
    ),
    Reason.INVALID_CONFIGURATION: Advice(
        "condition `Failed`",
        "A value of the document cannot be used with this model, data or storage. The message begins with the field.",
        "Correct the field, then delete the job and apply it again. `finetune validate FILE` finds most of these errors before "
        "anything runs.",
    ),
    Reason.INVALID_DATA: Advice(
        "condition `Failed`",
        "A file or a row cannot be read, lacks a column, or holds a value of the wrong type. The message begins with the file "
        "and the line.",
        "Correct the row or the `columns` of the data source. `finetune validate --local FILE` reads all data and names the "
        "first error. [Data formats](../guides/data-formats.md) shows a valid row for every format.",
    ),
    Reason.OUT_OF_MEMORY: Advice(
        "condition `Failed`",
        "The GPU's or the host's memory, or `/dev/shm`, is too small for the model, the micro-batch or the data. The message "
        "says which.",
        "Lower `training.microBatchSize`, which does not change the loss, or `data.maxLength`; set "
        "`training.gradientCheckpointing: true`; raise `deepspeed.zeroStage`; set `deepspeed.offload`; or raise "
        "`workers.resources.limits.memory`. If `/dev/shm` is full, raise `workers.sharedMemory`.",
    ),
    Reason.NON_FINITE_LOSS: Advice(
        "condition `Failed`",
        "The loss or the norm of the gradient became NaN or infinite. The message names the step, the rows of the micro-batch "
        "and the last good checkpoint; nothing is saved after it.",
        "Look at the rows in the message. If they are as they should be, lower `training.optimizer.learningRate`, lengthen "
        "`training.schedule.warmupSteps`, or set `training.precision` to BFloat16 or Float32. Choose an empty "
        "`checkpoint.storage` when you change the optimizer or the schedule: they are part of the run's identity. "
        "`training.lossAnomaly` can skip such steps, or return to a checkpoint, and may change when a run resumes: "
        "[Survive loss anomalies](../how-to/loss-anomalies.md).",
    ),
    Reason.PREFLIGHT_FAILED: Advice(
        "condition `Restarting`",
        "The node of a new pod computes wrong matrix products, or is slower than `spec.runPolicy.preflight` allows. The "
        "message has the measure, its value and the limit.",
        "The pod moves to another node without further action, and the failure counts as a disruption. "
        "[Check nodes before training](../how-to/preflight.md) explains the limits. If healthy nodes fail, lower "
        "`minimumRatio` or the minimums.",
    ),
    Reason.LOSS_SPIKE: Advice(
        "condition `Failed`",
        "The loss of a step was higher than `training.lossAnomaly.spikeRatio` times the median of the losses before it. The "
        "message names the step and the rows of the micro-batch with the highest loss; its gradient was not used.",
        "Look at the rows in the message. Set `training.lossAnomaly.action` to `SkipStep` or `RollBack`, or raise "
        "`spikeRatio`, and apply the job again: it resumes from its newest checkpoint.",
    ),
    Reason.HANG: Advice(
        "conditions `Restarting` and `Running`",
        "No rank made progress for longer than the limit of its phase in `runPolicy.hang`: by default 10 minutes while "
        "training, and 30 minutes otherwise. The message names the rank that the others wait for, and where in the code it is.",
        "Look at the stacks of all ranks in the log of each pod, and at that rank's node: a storage or network that does not "
        "answer is the usual cause. The ranks are restarted without further action. If the rank was working, raise the limit "
        "that the message names.",
    ),
    Reason.STORAGE_UNAVAILABLE: Advice(
        "conditions `Restarting` and `Running`",
        "The storage did not answer while data or a model was read, or when the last checkpoint or the model was written.",
        "Make the storage reachable; the message names the address. The pod is retried with a delay.",
    ),
    Reason.RENDEZVOUS_FAILED: Advice(
        "conditions `Restarting` and `Running`",
        "The ranks could not connect to each other, or lost the connection, and no other rank reported a cause.",
        "Check that pods of the job can reach each other on all ports: a NetworkPolicy or a service mesh sidecar is the usual "
        "cause. The ranks are restarted without further action.",
    ),
    Reason.INTERNAL_ERROR: Advice(
        "condition `Failed`",
        "The trainer has a bug, or a library does not fit its version.",
        "Report it with the traceback from the log and the document.",
    ),
    Reason.PREEMPTED: Advice(
        "conditions `Restarting` and `Running`; nothing if the job was suspended",
        "The pod received SIGTERM, for example from a drain. All ranks agreed on a step and stored a checkpoint.",
        "Nothing. A local run resumes with the command that it prints.",
    ),
    Reason.PREEMPTED_UNSAVED: Advice(
        "conditions `Restarting` and `Running`; nothing if the job was suspended",
        "The pod received SIGTERM, and the checkpoint could not be stored: the grace period was too short or the storage did "
        "not answer.",
        "Raise `runPolicy.terminationGracePeriodSeconds`. Work since the last checkpoint is computed again.",
    ),
    Reason.GPU_UNAVAILABLE: Advice(
        "conditions `Restarting` and `Running`",
        "The pod requests a GPU, or the machine of a local run has one, and CUDA does not start: most often the driver is too "
        "old for the CUDA version of the trainer image, or the GPU has failed. The message has the words of the driver.",
        "Update the node's driver, or use an image for its CUDA version; cordon a node whose GPU has failed, because the "
        "replaced pod may run there again. To train on the CPU, remove the GPU from `workers.resources`, or run "
        "`CUDA_VISIBLE_DEVICES= finetune run FILE`.",
    ),
}
