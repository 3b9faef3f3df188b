"""Rounds: which life of the process group it is, agreed on by all agents through the store.

Keys: `round` (the number of the current round), `fatal` (the Outcome all must end with, or empty), `failures` (in-place
restarts since the last new step), `acknowledged` (agents that know of the end), and below each round's number `node/<i>` (who
announced itself as node i), `announced`, `done` and `raised` (counters) and `master` (where its ranks meet).
"""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

from finetune_trainer.agent.store import Store
from finetune_trainer.agent.termination_message import bounded
from finetune_trainer.protocol.outcome import Outcome


class RendezvousState(NamedTuple):
    """What an agent sees of the others at one glance."""

    number: int
    fatal: Outcome | None
    announced: int
    done: int


class Rendezvous:
    """One agent's part in the rounds, over one connection to the store. Every call may raise StoreLostError."""

    def __init__(self, store: Store, node: int) -> None:
        self._store = store
        self._node = node
        self.number = 0
        if node == 0:
            store.write("fatal", "")
            # Rounds of a new store come after those of a lost one, and ranks use the number to tell their attempts apart.
            store.write("round", str(time.time_ns() // 1_000_000))
        else:
            store.wait_for("round")

    def join(self, later_than: int, master: str = "") -> None:
        """Announce this node for the current round; agent 0 says where the ranks will meet.

        A round this agent was in before, or one in which another agent already stood for this node (a pod that was
        replaced), is over: it is raised first.
        """
        token = uuid.uuid4().hex
        while True:
            self.number = int(self._store.read(["round"])[0])
            if self.number <= later_than:
                self._store.replace("round", str(self.number), str(later_than + 1))
            elif self._store.replace(f"{self.number}/node/{self._node}", "", token) == token:
                break
            else:
                self._store.replace("round", str(self.number), str(self.number + 1))
        self._store.add(f"{self.number}/done", 0)
        if master:
            self._store.write(f"{self.number}/master", master)
        self._store.add(f"{self.number}/announced", 1)

    def view(self) -> RendezvousState:
        """The state of the joined round."""
        number, fatal, announced, done = self._store.read(["round", "fatal", f"{self.number}/announced", f"{self.number}/done"])
        return RendezvousState(int(number), Outcome.model_validate_json(fatal) if fatal else None, int(announced), int(done))

    def master(self) -> str:
        """Where the ranks of this round meet, host:port; known once all nodes are announced."""
        return self._store.read([f"{self.number}/master"])[0]

    def end(self) -> None:
        """Raise the round: every agent stops its ranks and joins the next one."""
        self._store.replace("round", str(self.number), str(self.number + 1))

    def end_failed(self, most: int) -> bool:
        """The same because a rank failed. False, and nothing done, when that happened `most` times without a new step.

        Several agents may see the same failure; it counts once.
        """
        if self._store.add("failures", 0) >= most:
            return False
        if self._store.add(f"{self.number}/raised", 1) == 1:
            self._store.add("failures", 1)
        self.end()
        return True

    def forgive(self) -> None:
        """Forget earlier failures: the run went further than ever, or a pod was replaced, which the operator counts."""
        self._store.write("failures", "0")

    def give_up(self, outcome: Outcome) -> Outcome:
        """End all nodes with this outcome, or with the one that came first; the one it is."""
        return Outcome.model_validate_json(self._store.replace("fatal", "", bounded(outcome).decode()))

    def done(self) -> None:
        """All ranks of this node completed."""
        self._store.add(f"{self.number}/done", 1)

    def acknowledge(self) -> None:
        """This agent knows how the run ended and needs the store no longer."""
        self._store.add("acknowledged", 1)

    def acknowledged(self) -> int:
        """How many agents do."""
        return self._store.add("acknowledged", 0)
