"""A simulated cluster for elastic jobs: hosts that hold one pod each, come and go, and run the agents' rendezvous."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.support.simulated_cluster import SimulatedCluster, document

from finetune_operator.api import FineTuneJob
from finetune_operator.reconcile import Action, DeletePod, ObservedNodes, Pod, ReasonMessage
from finetune_trainer.protocol.outcome import Progress

TICK_SECONDS = 5


class ElasticCluster(SimulatedCluster):
    """One elastic job on some hosts.

    `sizes` are the numbers of nodes on which it has trained, in order, `deletions` the deletions of pods, and `cut_short` the
    names of pods that trained and got less time to stop than their grace period.
    """

    def __init__(self, nodes: int = 2, min_nodes: int = 1, hosts: int = 2, **run_policy: Any) -> None:
        super().__init__(nodes)
        self.min_nodes, self.batch_size, self.run_policy = min_nodes, 8 * nodes, run_policy
        self.lost_since: dict[str, datetime | None] = {f"host-{index}": None for index in range(hosts)}
        self.sizes: list[int] = []
        self.deletions: list[DeletePod] = []
        self.cut_short: list[str] = []
        self.scale(nodes)

    def scale(self, nodes: int, **run_policy: Any) -> ElasticCluster:
        """Edit spec.workers.nodes, as `kubectl scale` does, and spec.runPolicy."""
        self.generation += 1
        self.run_policy |= run_policy
        body = document(nodes, **self.run_policy)
        body["metadata"]["generation"] = self.generation
        body["spec"]["workers"] |= {"minNodes": self.min_nodes}
        body["spec"]["training"]["batchSize"] = self.batch_size
        self.job = FineTuneJob.model_validate(body)
        return self

    def lose(self, host: str) -> ElasticCluster:
        """Cut a host off."""
        self.lost_since[host] = self.now
        return self

    def restore(self, host: str) -> ElasticCluster:
        """Bring a host back."""
        self.lost_since[host] = None
        return self

    def tick(self, seconds: float = TICK_SECONDS) -> ElasticCluster:
        """Let some seconds pass in which kubelets, scheduler and agents work, and reconcile."""
        self.advance(seconds)
        for name, pod in list(self.pods.items()):
            if pod.is_being_deleted and not self._is_lost(pod):
                del self.pods[name]
        self._schedule()
        self._meet()
        lost = {host: since for host, since in self.lost_since.items() if since is not None}
        alive = frozenset(self.lost_since) - lost.keys()
        silent = frozenset(pod.uid for pod in self.pods.values() if self._is_lost(pod))
        self.observed |= {"nodes": ObservedNodes(lost, alive, bool(alive)), "silent_pods": silent}
        self.reconcile()
        return self

    def run(self, seconds: float, tick: float = TICK_SECONDS) -> ElasticCluster:
        """Let time pass."""
        for _ in range(round(seconds / tick)):
            self.tick(tick)
        return self

    @property
    def size(self) -> int | None:
        """The number of nodes that the run uses."""
        assert self.status.elastic is not None
        return self.status.elastic.nodes

    def _is_lost(self, pod: Pod) -> bool:
        return self.lost_since.get(pod.node) is not None

    def _schedule(self) -> None:
        used = {pod.node for pod in self.pods.values() if not pod.has_stopped}
        free = [host for host, since in self.lost_since.items() if since is None and host not in used]
        for pod in sorted(self.pods.values(), key=lambda pod: (pod.created, pod.index)):
            if pod.node or pod.is_being_deleted:
                continue
            if free:
                self.pods[pod.name] = replace(pod, node=free.pop(0), phase="Running", running=True, waiting=None)
            else:
                self.pods[pod.name] = replace(pod, waiting=ReasonMessage("Unschedulable", "no host is free"))

    def _meet(self) -> None:
        """The rendezvous: the first pod waits for as many nodes as its command line says; then all of them train."""
        alive = {
            pod.index: pod
            for pod in self.pods.values()
            if pod.running and not pod.is_being_deleted and not pod.is_finished and not self._is_lost(pod)
        }
        size = alive[0].nodes if 0 in alive else 0
        trains = size > 0 and all(index in alive for index in range(size))
        for name, pod in self.pods.items():
            since = self.lost_since.get(pod.node)
            is_ready = trains and pod.index < size and pod.uid == alive[pod.index].uid if pod.index in alive else False
            self.pods[name] = replace(pod, ready=is_ready, node_lost_since=since)
        if trains:
            assert self.job is not None
            assert size in range(self.min_nodes, 1 + max(self.job.spec.workers.nodes, size))
            assert self.batch_size % (4 * size) == 0
            if not self.sizes or self.sizes[-1] != size:
                self.sizes.append(size)
            self.status = self.status.model_copy(update={"progress": Progress(step=1, total_steps=9, remaining_seconds=9**9)})

    def _apply(self, action: Action) -> None:
        if isinstance(action, DeletePod) and action.grace_seconds is not None and self.pods[action.name].ready:
            self.cut_short.append(action.name)
        super()._apply(action)
        if isinstance(action, DeletePod):
            self.deletions.append(action)
            if action.force:
                self.pods.pop(action.name, None)
