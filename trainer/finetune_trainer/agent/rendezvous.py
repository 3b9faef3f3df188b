"""The rendezvous of all agents: they agree on the current round through the store.

A round is one lifetime of the process group; all ranks start together in it. Keys of the store:

- `round`: the number of the current round
- `nodes`: the number of nodes of the run, which the command line of agent 0 decides
- `fatal`: the Outcome that all agents must end with, or empty
- `failures`: in-place restarts since the last new step
- `acknowledged`: the number of agents that have read how the run ended
- `claim/<i>`: the claim of the agent that may announce node i: of several agents, the one with the greatest claim

and for each round, below its number:

- `node/<i>`: the token of the agent that announced node i
- `announced`, `done`, `raised`: the number of nodes that were announced and that completed, and of agents that ended the round
- `beats`: the number of signs of life of all nodes, a counter that does not change while no rank makes progress
- `cause`: the Outcome because of which the round ended, or empty
- `master`: where the ranks meet, HOST:PORT

and if an agent of the round is new, for the preflight check:

- `preflight/asked`, `preflight/able`: the number of agents that ask for it, and of those that can take part
- `preflight/config`, `preflight/master`: the config of agent 0, and where the processes that measure meet, HOST:PORT
- `preflight/<i>`: the measurements of node i
- `preflight/measured`, `preflight/read`: the number of nodes that were measured, and of agents that have read all results
"""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

from finetune_trainer.agent.store import Store
from finetune_trainer.agent.termination_message import encode_bounded
from finetune_trainer.protocol.outcome import Outcome


class RendezvousState(NamedTuple):
    """The current round, and the state of the round that this agent joined."""

    round: int
    fatal: Outcome | None
    announced: int
    done: int
    peer_beats: int
    """Signs of life of the other nodes in that round; only its changes have a meaning."""


class PreflightOffer(NamedTuple):
    """What an agent says about the preflight check when it joins a round."""

    is_asked: bool
    """Whether this agent was not checked yet."""
    config: str
    master: str
    """Where the processes that measure meet; only from agent 0."""


class ReplacedError(Exception):
    """Another agent has claimed this node: this agent's pod was replaced, and the run goes on without it."""


class NotMemberError(Exception):
    """The run has fewer nodes at present and goes on without this one."""


class Rendezvous:
    """One agent's part in the rendezvous, over one connection to the store. Every method may raise StoreLostError.

    `nodes` is the number of nodes of the run: that of agent 0, which the others take over. `claim` is the claim of this agent
    over an earlier connection; empty before its first.

    Raises NotMemberError if the run has too few nodes for this one.
    """

    def __init__(self, store: Store, node: int, nodes: int, claim: str = "") -> None:
        self._store = store
        self._node = node
        self.nodes = nodes
        self._own_beats = 0
        self._has_acknowledged = False
        self.claim = claim
        self.round = 0
        if node == 0:
            store.write("fatal", "")
            store.write("nodes", str(nodes))
            # Rounds of a new store must be later than those of a lost one: ranks name their attempt after the round.
            store.write("round", str(time.time_ns() // 1_000_000))
        else:
            store.wait_for("round")
            self.nodes = int(store.read(["nodes"])[0])
            if node >= self.nodes:
                raise NotMemberError(f"the run has {self.nodes} nodes and goes on without node {node}")

    def join(self, later_than: int, master: str = "", preflight: PreflightOffer | None = None) -> None:
        """Announce this node for the current round; agent 0 also publishes the master address of the ranks.

        A round is over if this agent was in it before, or if another agent announced this node in it (the agent of a pod that
        was replaced). Such a round is ended first. Raises ReplacedError if a later agent has claimed this node.
        """
        self._claim_node()
        token = uuid.uuid4().hex
        while True:
            self.round = int(self._store.read(["round"])[0])
            if self.round <= later_than:
                self._store.replace("round", str(self.round), str(later_than + 1))
            elif self._store.replace(f"{self.round}/node/{self._node}", "", token) == token:
                break
            else:
                self._store.replace("round", str(self.round), str(self.round + 1))
        self._own_beats = 0
        self._has_acknowledged = False
        for counter in ("done", "beats"):
            self._store.add(f"{self.round}/{counter}", 0)
        if master:
            self._store.write(f"{self.round}/master", master)
        if preflight:
            self._offer_preflight(preflight)
        self._store.add(f"{self.round}/announced", 1)

    def _claim_node(self) -> None:
        """Claim this node for this agent. A new agent claims more than its predecessors, which may still be alive.

        Claims are compared as text: a number, then a random part that decides between two agents that are new to a new store.
        """
        key, token = f"claim/{self._node}", uuid.uuid4().hex
        while True:
            wanted = self.claim or _claim(1, token)
            holder = self._store.replace(key, "", wanted)
            if not self.claim and holder != wanted:
                wanted = _claim(int(holder.partition("-")[0]) + 1, token)
            if holder > wanted:
                raise ReplacedError
            if holder == wanted or self._store.replace(key, holder, wanted) == wanted:
                self.claim = wanted
                return

    def state(self) -> RendezvousState:
        """The current round, and the state of the joined one. Raises ReplacedError if a later agent has claimed this node."""
        counters = [f"{self.round}/{name}" for name in ("announced", "done", "beats")]
        keys = ["round", "fatal", f"claim/{self._node}", *counters]
        number, fatal, holder, announced, done, beats = self._store.read(keys)
        if holder > self.claim:
            raise ReplacedError
        outcome = Outcome.model_validate_json(fatal) if fatal else None
        return RendezvousState(int(number), outcome, int(announced), int(done), int(beats) - self._own_beats)

    def beat(self) -> None:
        """Report to the other nodes that a rank of this node makes progress."""
        self._own_beats += 1
        self._store.add(f"{self.round}/beats", 1)

    def master(self) -> str:
        """Where the ranks of this round meet, HOST:PORT; call it when all nodes are announced."""
        return self._store.read([f"{self.round}/master"])[0]

    def _offer_preflight(self, offer: PreflightOffer) -> None:
        self._store.add(f"{self.round}/preflight/able", 1)
        self._store.add(f"{self.round}/preflight/asked", int(offer.is_asked))
        if offer.master:
            self._store.write(f"{self.round}/preflight/config", offer.config)
            self._store.write(f"{self.round}/preflight/master", offer.master)

    def is_preflight_due(self) -> bool:
        """Whether an agent of the round asks for the preflight check and all can take part; call it when all are announced.

        Pods that were created before the document asked for the check cannot.
        """
        able, asked = (self._store.add(f"{self.round}/preflight/{name}", 0) for name in ("able", "asked"))
        return able == self.nodes and asked > 0

    def preflight_config(self) -> tuple[str, str]:
        """The config of agent 0, which holds for all, and where the processes that measure meet, HOST:PORT."""
        config, master = self._store.read([f"{self.round}/preflight/{name}" for name in ("config", "master")])
        return config, master

    def publish_measurement(self, text: str) -> None:
        """Publish the measurements of this node."""
        self._store.write(f"{self.round}/preflight/{self._node}", text)
        self._store.add(f"{self.round}/preflight/measured", 1)

    def count_measurements(self) -> int:
        """The number of nodes whose measurements can be read."""
        return self._store.add(f"{self.round}/preflight/measured", 0)

    def read_measurements(self) -> list[str]:
        """The measurements of all nodes."""
        return self._store.read([f"{self.round}/preflight/{node}" for node in range(self.nodes)])

    def acknowledge_measurements(self) -> int:
        """Record that this agent has read all measurements; returns the number of agents that have."""
        is_first, self._has_acknowledged = not self._has_acknowledged, True
        return self._store.add(f"{self.round}/preflight/read", int(is_first))

    def end_round(self) -> None:
        """End the round: every agent stops its ranks and joins the next one."""
        self._store.replace("round", str(self.round), str(self.round + 1))

    def end_failed_round(self, cause: Outcome, max_restarts: int) -> bool:
        """End the round because a rank failed, and count one failure even if several agents call this.

        Returns False, and changes nothing, after `max_restarts` failures without a new step.
        """
        if self._store.add("failures", 0) >= max_restarts:
            return False
        self._store.replace(self._cause_key, "", encode_bounded(cause).decode())
        if self._store.add(f"{self.round}/raised", 1) == 1:
            self._store.add("failures", 1)
        self.end_round()
        return True

    def cause(self) -> Outcome | None:
        """The failure that ended the joined round; None if it ended for another reason, such as a lost pod."""
        text = self._store.replace(self._cause_key, "", "")
        return Outcome.model_validate_json(text) if text else None

    @property
    def _cause_key(self) -> str:
        return f"{self.round}/cause"

    def reset_failures(self) -> None:
        """Set the failure count to zero: the run made a new step, or a pod was replaced, which the operator counts."""
        self._store.write("failures", "0")

    def publish_failure(self, outcome: Outcome) -> Outcome:
        """End all nodes with this outcome, or with one that was published before; returns the outcome that holds."""
        return Outcome.model_validate_json(self._store.replace("fatal", "", encode_bounded(outcome).decode()))

    def mark_done(self) -> None:
        """Record that all ranks of this node completed."""
        self._store.add(f"{self.round}/done", 1)

    def acknowledge(self) -> None:
        """Record that this agent has read how the run ended and no longer needs the store."""
        self._store.add("acknowledged", 1)

    def count_acknowledgements(self) -> int:
        """The number of agents that no longer need the store."""
        return self._store.add("acknowledged", 0)


def _claim(number: int, token: str) -> str:
    return f"{number:08}-{token}"
