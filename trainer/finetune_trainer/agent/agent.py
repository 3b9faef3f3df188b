"""The agent's state machine. docs/concepts/rendezvous.md is its contract.

    connect to the store -> join a round -> wait for all nodes -> run the ranks -> wait for all nodes to complete -> end

Three exceptions are the other transitions: `RoundEnded` leads back to joining the next round, `StoreLostError` to connecting
again, and `RunEnded` to the end.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Mapping

from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.preflight_run import run_preflight
from finetune_trainer.agent.rendezvous import NotMemberError, PreflightOffer, Rendezvous, RendezvousState, ReplacedError
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.stop_signals import StopSignals
from finetune_trainer.agent.store import Store, StoreLostError
from finetune_trainer.agent.worker_group import WorkerGroup
from finetune_trainer.protocol.outcome import Outcome, Reason

LOG = logging.getLogger("finetune.agent")
FIRST_RECONNECT_PAUSE = 0.2  # seconds
REPLACED = Outcome(
    reason=Reason.PREEMPTED_UNSAVED,
    message="another pod has taken the place of this one, which goes on from the last checkpoint",
)


class RoundEnded(Exception):
    """The ranks restart in the next round."""


class RunEnded(Exception):
    """The run is over for this agent."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Agent:
    """Starts and monitors the ranks of this node, in step with the agents of the other nodes."""

    def __init__(self, settings: Settings, monitor: Monitor, stops: StopSignals, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._monitor = monitor
        self._stops = stops
        self._environment = environment
        self._workers = WorkerGroup(settings, monitor, environment)
        self._claim = ""  # of this agent to its node; see Rendezvous
        self._round = 0  # the last round that this agent joined; 0 before the first
        self._has_passed_preflight = False
        self._has_reset_failures = False
        self._highest_step = 0  # when the failure count was last reset
        self._peer_beats = 0
        self._shared_at = 0.0  # when this node last gave the others a sign of life
        self._peer_preemption: Outcome | None = None

    @property
    def _is_host(self) -> bool:
        """Whether this agent hosts the store."""
        return self._settings.node_rank == 0

    # The three nested loops: connections, rounds of a connection, polls of a round.

    def run(self) -> Outcome:
        """Run rounds until the run is over and return its outcome.

        A lost store is waited for without a limit: the operator, which replaces pod 0, decides when to give up. So is a run
        that has fewer nodes at present: the operator creates this pod before the run grows.
        """
        pause, started = FIRST_RECONNECT_PAUSE, time.monotonic()
        try:
            while True:
                try:
                    rendezvous = self._connect()
                    pause = FIRST_RECONNECT_PAUSE
                    self._run_rounds(rendezvous)
                except ReplacedError:
                    LOG.info("another pod has taken the place of this one: ending")
                    raise RunEnded(REPLACED) from None
                except (StoreLostError, NotMemberError) as error:
                    if pause == FIRST_RECONNECT_PAUSE:
                        LOG.info("%s: %s", "waiting for the run" if self._round == 0 else "the connection is lost", error)
                    rendezvous = None  # closes the connection: agent 0 must free the port before it can host another store
                    self._remember_peer_preemption()
                    self._workers.shut_down()
                    if self._is_host and self._round == 0 and time.monotonic() - started > self._limits.port_timeout:
                        raise RunEnded(self._hosting_failure(error)) from error
                self._wait_before_reconnect(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, self._limits.max_reconnect_pause)
        except RunEnded as end:
            return self._monitor.complete_outcome(end.outcome)
        finally:
            self._workers.close()

    def _connect(self) -> Rendezvous:
        host, port = self._settings.rendezvous_host, self._settings.rendezvous_port
        store = Store(host, port, self._is_host, self._limits.store_timeout)
        return Rendezvous(store, self._settings.node_rank, self._settings.nodes, self._claim)

    def _run_rounds(self, rendezvous: Rendezvous) -> None:
        """Run rounds over one connection; ends by RunEnded or StoreLostError."""
        try:
            while True:
                with contextlib.suppress(RoundEnded):
                    self._run_round(rendezvous)
                cause = rendezvous.cause()
                self._monitor.ranks_failed(cause)
                self._log_stacks_after(cause)
                self._remember_peer_preemption()
                self._workers.shut_down()
        except RunEnded as end:
            self._log_stacks_after(end.outcome)
            self._workers.shut_down()
            if not end.outcome.exit_policy.disruption:
                self._wait_for_acknowledgements(rendezvous)
            raise

    def _run_round(self, rendezvous: Rendezvous) -> None:
        """Run one round; ends by RoundEnded, RunEnded or StoreLostError."""
        self._join(rendezvous)
        LOG.info("round %d: waiting for %d nodes", self._round, rendezvous.nodes)
        while self._poll(rendezvous).announced < rendezvous.nodes:
            pass
        if self._settings.preflight is not None and rendezvous.is_preflight_due():
            self._check_nodes(rendezvous)
        master = rendezvous.master()
        LOG.info("round %d: starting %d ranks; master is %s", self._round, self._settings.processes_per_node, master)
        self._peer_preemption = None
        self._workers.start(self._round, master, rendezvous.nodes)
        completion = self._monitor_ranks(rendezvous)
        rendezvous.mark_done()
        while self._poll(rendezvous).done < rendezvous.nodes:
            pass
        raise RunEnded(completion)

    def _join(self, rendezvous: Rendezvous) -> None:
        master = preflight_master = ""
        if self._is_host:
            master, preflight_master = (f"{self._settings.rendezvous_host}:{port}" for port in free_ports(2))
        offer = None
        if self._settings.preflight is not None:
            config = self._settings.preflight.model_dump_json(by_alias=True)
            offer = PreflightOffer(not self._has_passed_preflight, config, preflight_master)
        rendezvous.join(self._round, master, offer)
        self._claim = rendezvous.claim
        self._round = rendezvous.round
        if not self._has_reset_failures:  # this is a new pod, whose restarts the operator counts
            rendezvous.reset_failures()
            self._has_reset_failures = True

    def _check_nodes(self, rendezvous: Rendezvous) -> None:
        """Check all nodes, because one of them is new: those that fail end by RunEnded, the others then by RoundEnded."""
        LOG.info("round %d: checking the nodes", self._round)
        failing = run_preflight(self._settings, rendezvous, self._environment, lambda: self._poll(rendezvous), self._tick)
        for node, problem in failing.items():
            LOG.error("node %d fails the preflight check: %s", node, problem)
        own = failing.get(self._settings.node_rank)
        if own is not None:
            message = f"preflight check of node {self._settings.node_rank}: {own}"
            raise RunEnded(Outcome(reason=Reason.PREFLIGHT_FAILED, message=message, node=self._settings.node_rank))
        self._has_passed_preflight = True
        if failing:
            rendezvous.end_round()
            raise RoundEnded

    def _monitor_ranks(self, rendezvous: Rendezvous) -> Outcome:
        """Wait until all ranks of this node have completed; returns the outcome of the first one."""
        failed_at: float | None = None
        while (completion := self._workers.completion()) is None:
            self._share_life(rendezvous, self._poll(rendezvous))
            self._reset_failures_after_progress(rendezvous)
            self._workers.prepare_restart()
            failure = self._workers.first_failure()
            if failure is not None:
                failed_at = failed_at or time.monotonic()
                self._handle_failure(rendezvous, failure, time.monotonic() - failed_at)
        return completion

    def _share_life(self, rendezvous: Rendezvous, state: RendezvousState) -> None:
        """Exchange signs of life with the other nodes: a rank that waits for theirs may be silent while they work."""
        now = time.monotonic()
        if state.peer_beats != self._peer_beats:
            self._peer_beats, self._workers.peers_alive_at = state.peer_beats, now
        is_due = now - self._shared_at >= self._limits.share_interval
        if is_due and self._workers.last_heartbeat > self._shared_at:
            self._shared_at = now
            rendezvous.beat()

    def _poll(self, rendezvous: Rendezvous) -> RendezvousState:
        """Wait for one poll interval and return the state of the other agents, unless it ends the round or the run."""
        self._tick()
        if self._stops.count:
            raise RunEnded(self._stop(rendezvous))
        state = rendezvous.state()
        if state.fatal is not None:
            raise RunEnded(state.fatal)
        if state.round != rendezvous.round:
            raise RoundEnded
        return state

    def _tick(self) -> None:
        self._monitor.heartbeat()
        self._workers.reap_orphans()
        time.sleep(self._limits.poll_interval)

    # Failures of a rank.

    def _handle_failure(self, rendezvous: Rendezvous, failure: Outcome, seconds_ago: float) -> None:
        """End the round or the run because of a failure here; returns while the cause may still be unknown."""
        if failure.exit_policy.disruption:
            # Another node was stopped, and all ranks stopped with it: wait for that node's return.
            if not self._workers.is_running:
                rendezvous.end_round()
                raise RoundEnded
            return
        if failure.reason is Reason.RENDEZVOUS_FAILED and seconds_ago < self._limits.cause_delay:
            return
        LOG.error("%s: %s", failure.reason, failure.message)
        if failure.exit_policy.in_place:
            if rendezvous.end_failed_round(failure, self._limits.max_in_place_restarts):
                raise RoundEnded
            failures = f"; it failed {self._limits.max_in_place_restarts + 1} times without a new step in between"
            failure = failure.model_copy(update={"message": failure.message + failures})
        raise RunEnded(self._publish_failure(rendezvous, failure))

    def _publish_failure(self, rendezvous: Rendezvous, failure: Outcome) -> Outcome:
        try:
            return rendezvous.publish_failure(self._monitor.complete_outcome(failure))
        except StoreLostError:  # no other agent can read it
            return failure

    def _log_stacks_after(self, cause: Outcome | None) -> None:
        """After a hang, log the stacks of the ranks before they are stopped: they show what they were waiting for."""
        if cause is not None and cause.reason is Reason.HANG:
            self._workers.log_stacks_once()

    def _reset_failures_after_progress(self, rendezvous: Rendezvous) -> None:
        # Only agent 0 receives step events. A step that was already made before the last restart is not progress.
        if self._monitor.highest_step > self._highest_step:
            self._highest_step = self._monitor.highest_step
            if self._is_host:
                rendezvous.reset_failures()

    def _hosting_failure(self, error: Exception) -> Outcome:
        message = f"agent 0 cannot host the store on port {self._settings.rendezvous_port}: {error}"
        return Outcome(reason=Reason.RENDEZVOUS_FAILED, message=message, node=0)

    # Stops by SIGTERM.

    def _stop(self, rendezvous: Rendezvous) -> Outcome:
        """Make the ranks store a checkpoint and exit. They have time until SIGKILL, or until a second signal.

        Ranks that have not trained yet get less time: they may wait for another rank inside torch, which ignores signals.
        """
        LOG.info("stop requested: the ranks store a checkpoint first")
        self._workers.terminate()
        has_trained, stopped_at = self._workers.has_trained, time.monotonic()
        failed_at: float | None = None
        while self._workers.is_running:
            self._tick()
            failure = self._workers.first_failure()
            if failure is not None and not failure.exit_policy.disruption:
                failed_at = failed_at or time.monotonic()
            is_hopeless = failed_at is not None and time.monotonic() - failed_at > self._limits.cause_delay
            is_late = not has_trained and time.monotonic() - stopped_at > self._limits.start_grace
            if is_hopeless or is_late or self._stops.count > 1:
                self._workers.kill()
        return self._outcome_of_stop(rendezvous)

    def _outcome_of_stop(self, rendezvous: Rendezvous) -> Outcome:
        """The outcome of a stop whose ranks have all exited."""
        failure, completion = self._workers.first_failure(), self._workers.completion()
        if completion is not None:
            self._announce_completion(rendezvous)
            return completion
        if failure is None:
            return self._stopped_without_ranks()
        if failure.exit_policy.disruption:
            return failure
        if not failure.exit_policy.in_place:
            return self._publish_failure(rendezvous, failure)
        if not self._workers.has_trained:
            return Outcome(reason=Reason.PREEMPTED, message="stopped while the run was prepared; no step was lost")
        message = f"stopped on request; the work since the last checkpoint is lost because {failure.message}"
        return failure.model_copy(update={"reason": Reason.PREEMPTED_UNSAVED, "message": message})

    def _announce_completion(self, rendezvous: Rendezvous) -> None:
        """The run completed during the stop: lets the other nodes see it, for a limited time."""
        deadline = time.monotonic() + self._limits.end_grace
        with contextlib.suppress(StoreLostError):
            rendezvous.mark_done()
            while rendezvous.state().done < rendezvous.nodes and time.monotonic() < deadline:
                self._tick()

    def _stopped_without_ranks(self) -> Outcome:
        if self._peer_preemption is not None:
            return self._peer_preemption
        return Outcome(reason=Reason.PREEMPTED_UNSAVED, message="stopped on request while no rank ran")

    def _remember_peer_preemption(self) -> None:
        """Keep the outcome of ranks that stored a checkpoint because another node was stopped: if this agent is stopped a
        moment later, it is the outcome of its stop too."""
        failure = self._workers.first_failure()
        if failure is not None and failure.exit_policy.disruption:
            self._peer_preemption = failure

    # Waits outside a round.

    def _wait_before_reconnect(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._tick()
            if self._stops.count:
                raise RunEnded(self._stopped_without_ranks())

    def _wait_for_acknowledgements(self, rendezvous: Rendezvous) -> None:
        """Keep the store of agent 0 up until the other agents have read how the run ended, for a limited time."""
        deadline = time.monotonic() + self._limits.end_grace
        with contextlib.suppress(StoreLostError):
            rendezvous.acknowledge()
            while self._is_host and rendezvous.count_acknowledgements() < rendezvous.nodes and time.monotonic() < deadline:
                self._tick()
