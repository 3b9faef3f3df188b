"""How a job shares the cluster with others: its queue, and gang scheduling."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from finetune_trainer.config.base import Rule, Section

Gang = Literal["Native", "Coscheduling", "Volcano"]

MANAGER = "finetune-operator.io/finetunejob-controller"
"""The value of spec.managedBy that names this operator; the same as no value."""

MULTIKUEUE_MANAGER = "kueue.x-k8s.io/multikueue"
"""The value of spec.managedBy with which MultiKueue runs the job in another cluster."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
PREBUILT_LABEL = "kueue.x-k8s.io/prebuilt-workload-name"
"""Set by MultiKueue on the copy of a job in another cluster: the name of the Workload that it created there."""
ORIGIN_LABEL = "kueue.x-k8s.io/multikueue-origin"
"""Set by MultiKueue on the same copy, which it deletes when the job has ended."""


class Scheduling(Section):
    """The queue that admits the job, and the scheduler that places its pods together."""

    queue_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="Kueue LocalQueue in the job's namespace. The job starts when Kueue admits all of its pods. Defaults to "
        "the job's label kueue.x-k8s.io/queue-name.",
    )
    workload_priority_class: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="Kueue WorkloadPriorityClass, which orders the jobs of a queue and decides which are preempted. Defaults "
        "to the job's label kueue.x-k8s.io/priority-class, then to workers.template.priorityClassName.",
    )
    gang: Gang | None = Field(
        None,
        description="Scheduler that binds the job's pods all at once or not at all. Native: Kubernetes 1.37 with PodGroups; "
        "Coscheduling: the plugin of kubernetes-sigs/scheduler-plugins; Volcano: the scheduler of that name.",
    )
    volcano_queue: str | None = Field(
        None, min_length=1, max_length=253, description="Queue of Volcano; Volcano's default queue without it."
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.volcanoQueue) || (has(self.gang) && self.gang == 'Volcano')",
            "only Volcano has such queues: set gang: Volcano, or name a queue of Kueue in queueName",
            "volcanoQueue",
        ),
    )
