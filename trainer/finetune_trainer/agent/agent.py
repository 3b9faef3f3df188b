"""The agent's loop: round after round until the run is over. docs/concepts/rendezvous.md is its contract."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Mapping

from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.ports import free_ports
from finetune_trainer.agent.rendezvous import Rendezvous, RendezvousState
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.stop_signals import StopSignals
from finetune_trainer.agent.store import Store, StoreLostError
from finetune_trainer.agent.worker_group import WorkerGroup, severity
from finetune_trainer.protocol.outcome import Outcome, Reason

LOG = logging.getLogger("finetune.agent")
FIRST_PAUSE = 0.2  # seconds before the first new try to reach a lost store


class RoundOver(Exception):
    """The ranks start anew in the next round."""


class RunOver(Exception):
    """This agent's part is over."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Agent:
    """Launches and watches this node's ranks, in step with the agents of the other nodes."""

    def __init__(self, settings: Settings, monitor: Monitor, stops: StopSignals, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._limits = settings.limits
        self._monitor = monitor
        self._stops = stops
        self._gang = WorkerGroup(settings, monitor, environment)
        self._round = 0  # the last one this agent took part in
        self._fresh = True
        self._forgiven_step = 0
        self._stopped_by_peer: Outcome | None = None

    def run(self) -> Outcome:
        """Take part until the run is over. A store that is gone is waited for as long as it takes: the operator, which
        replaces pod 0, knows when to give up."""
        pause, began = FIRST_PAUSE, time.monotonic()
        try:
            while True:
                try:
                    rounds = self._connect()
                    pause = FIRST_PAUSE
                    self._take_part(rounds)
                except StoreLostError as error:
                    if pause == FIRST_PAUSE:
                        LOG.info("%s: %s", "waiting for the store" if self._round == 0 else "the store is lost", error)
                    rounds = None  # agent 0 must free the port before it can host another
                    self._note_stop_by_peer()
                    self._gang.end()
                    if self._hosts and self._round == 0 and time.monotonic() - began > self._limits.store_port:
                        raise RunOver(self._no_store(error)) from error
                self._pause(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, self._limits.reconnect_most)
        except RunOver as over:
            return self._monitor.completed(over.outcome)
        finally:
            self._gang.end()

    @property
    def _hosts(self) -> bool:
        return self._settings.node_rank == 0

    def _connect(self) -> Rendezvous:
        host, port = self._settings.rendezvous_host, self._settings.rendezvous_port
        return Rendezvous(Store(host, port, self._hosts, self._limits.store_answer), self._settings.node_rank)

    def _take_part(self, rounds: Rendezvous) -> None:
        """Rounds over one connection; leaves it by RunOver or StoreLostError."""
        try:
            while True:
                with contextlib.suppress(RoundOver):
                    self._one_round(rounds)
                self._note_stop_by_peer()
                self._gang.end()
        except RunOver as over:
            self._gang.end()
            if not over.outcome.exit_policy.disruption:
                self._farewell(rounds)
            raise

    def _one_round(self, rounds: Rendezvous) -> None:
        rounds.join(self._round, f"{self._settings.rendezvous_host}:{free_ports(1)[0]}" if self._hosts else "")
        self._round = rounds.number
        if self._fresh:
            rounds.forgive()
            self._fresh = False
        LOG.info("round %d: waiting for %d nodes", self._round, self._settings.nodes)
        while self._look(rounds).announced < self._settings.nodes:
            pass
        master = rounds.master()
        LOG.info("round %d: starting %d ranks, which meet at %s", self._round, self._settings.processes_per_node, master)
        self._stopped_by_peer = None
        self._gang.start(self._round, master)
        complete = self._watch(rounds)
        rounds.done()
        while self._look(rounds).done < self._settings.nodes:
            pass
        raise RunOver(complete)

    def _watch(self, rounds: Rendezvous) -> Outcome:
        """Until all ranks of this node completed: the first one's last word."""
        failed_since: float | None = None
        while (complete := self._gang.complete()) is None:
            self._look(rounds)
            self._forgive(rounds)
            failure = self._gang.failure()
            if failure is not None:
                failed_since = failed_since or time.monotonic()
                self._judge(rounds, failure, time.monotonic() - failed_since)
        return complete

    def _judge(self, rounds: Rendezvous, failure: Outcome, seconds_ago: float) -> None:
        """Decide what a failure of a rank here means for all; returns when it is too early to tell."""
        if failure.exit_policy.disruption:
            # Another node was told to stop, and all ranks stopped with it: wait for its return.
            if not self._gang.running:
                rounds.end()
                raise RoundOver
            return
        if failure.reason is Reason.RENDEZVOUS_FAILED and seconds_ago < self._limits.first_cause:
            return
        LOG.error("%s: %s", failure.reason, failure.message)
        if failure.exit_policy.in_place:
            if rounds.end_failed(self._limits.in_place_restarts):
                raise RoundOver
            restarts = f"; so it went {self._limits.in_place_restarts + 1} times without a new step in between"
            failure = failure.model_copy(update={"message": failure.message + restarts})
        raise RunOver(self._give_up(rounds, failure))

    def _give_up(self, rounds: Rendezvous, failure: Outcome) -> Outcome:
        try:
            return rounds.give_up(self._monitor.completed(failure))
        except StoreLostError:  # nobody is left to be told
            return failure

    def _forgive(self, rounds: Rendezvous) -> None:
        # Only agent 0 hears of steps. A step that was already made before the last restart is no progress.
        if self._monitor.highest_step > self._forgiven_step:
            self._forgiven_step = self._monitor.highest_step
            if self._hosts:
                rounds.forgive()

    def _look(self, rounds: Rendezvous) -> RendezvousState:
        """One turn of the loop: what the others did, unless it ends this round or the run."""
        self._turn()
        if self._stops.count:
            raise RunOver(self._stop(rounds))
        view = rounds.view()
        if view.fatal is not None:
            raise RunOver(view.fatal)
        if view.number != rounds.number:
            raise RoundOver
        return view

    def _turn(self) -> None:
        self._monitor.beat()
        self._gang.reap()
        time.sleep(self._limits.tick)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._turn()
            if self._stops.count:
                raise RunOver(self._stopped_without_ranks())

    def _stop(self, rounds: Rendezvous) -> Outcome:
        """Told to stop: the ranks store a checkpoint, for which they have as long as whoever told us waits."""
        LOG.info("told to stop: the ranks store a checkpoint first")
        self._gang.ask_to_stop()
        failed_since: float | None = None
        while self._gang.running:
            self._turn()
            failure = self._gang.failure()
            if failure is not None and not failure.exit_policy.disruption:
                failed_since = failed_since or time.monotonic()
            hopeless = failed_since is not None and time.monotonic() - failed_since > self._limits.first_cause
            if hopeless or self._stops.count > 1:
                self._gang.kill()
        return self._stopped(rounds)

    def _stopped(self, rounds: Rendezvous) -> Outcome:
        """How a stop ended, now that no rank runs."""
        failure, complete = self._gang.failure(), self._gang.complete()
        if complete is not None:
            self._finish_in_haste(rounds)
            return complete
        if failure is None:
            return self._stopped_without_ranks()
        if failure.exit_policy.disruption:
            return failure
        if severity(failure) == 0:
            return self._give_up(rounds, failure)
        message = f"told to stop; the work since the last checkpoint is lost because {failure.message}"
        return failure.model_copy(update={"reason": Reason.PREEMPTED_UNSAVED, "message": message})

    def _finish_in_haste(self, rounds: Rendezvous) -> None:
        """The run completed while it was told to stop: the other nodes may know, but not for long."""
        until = time.monotonic() + self._limits.farewell
        with contextlib.suppress(StoreLostError):
            rounds.done()
            while rounds.view().done < self._settings.nodes and time.monotonic() < until:
                self._turn()

    def _stopped_without_ranks(self) -> Outcome:
        if self._stopped_by_peer is not None:
            return self._stopped_by_peer
        return Outcome(reason=Reason.PREEMPTED_UNSAVED, message="told to stop while no rank ran")

    def _note_stop_by_peer(self) -> None:
        """Remember that the ranks here stopped in order, should this agent be told to stop a moment later."""
        failure = self._gang.failure()
        if failure is not None and failure.exit_policy.disruption:
            self._stopped_by_peer = failure

    def _farewell(self, rounds: Rendezvous) -> None:
        """Agent 0 takes the store along, so it waits a little for the others to read there how the run ended."""
        until = time.monotonic() + self._limits.farewell
        with contextlib.suppress(StoreLostError):
            rounds.acknowledge()
            while self._hosts and rounds.acknowledged() < self._settings.nodes and time.monotonic() < until:
                self._turn()

    def _no_store(self, error: StoreLostError) -> Outcome:
        message = f"agent 0 cannot host the store on port {self._settings.rendezvous_port}: {error}"
        return Outcome(reason=Reason.RENDEZVOUS_FAILED, message=message, node=0)
