"""How a node's ranks end, with ranks that are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_trainer.agent import guard, worker_process
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.worker_group import WorkerGroup, severity
from finetune_trainer.protocol.outcome import Outcome, Reason

Start = Callable[[str, str], WorkerGroup]


def wait_until(look: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not look():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("rank_2", "rank_3", "reason", "rank", "message"),
    [
        ("complete", "exit:1", Reason.CRASHED, 3, "rank 3 on node 1 exited with code 1 (a rank died: "),
        ("complete", "exit:77", Reason.CRASHED, 3, "rank 3 on node 1 exited with code 77 "),
        ("complete", "exit:3", Reason.INVALID_DATA, 3, "rank 3 on node 1 exited with code 3 (a file or row of the data "),
        ("kill:9", "complete", Reason.CRASHED, 2, "rank 2 on node 1 was killed by signal 9 (SIGKILL)"),
        ("kill:11", "complete", Reason.CRASHED, 2, "rank 2 on node 1 was killed by signal 11 (SIGSEGV)"),
        ("fail:RendezvousFailed:0", "exit:1", Reason.CRASHED, 3, "rank 3 on node 1 exited"),
        ("exit:1", "fail:InvalidData:0", Reason.INVALID_DATA, 3, "rank 3 says InvalidData"),
        ("fail:Preempted:0", "fail:RendezvousFailed:0", Reason.RENDEZVOUS_FAILED, 3, "rank 3 says RendezvousFailed"),
    ],
)
def test_the_first_cause_is_told(start: Start, rank_2: str, rank_3: str, reason: Reason, rank: int, message: str) -> None:
    gang = start(rank_2, rank_3)
    wait_until(lambda: not gang.running)
    failure = gang.failure()
    assert failure is not None
    assert (failure.reason, failure.rank, failure.node) == (reason, rank, 1)
    assert failure.message.startswith(message)
    assert gang.complete() is None


@pytest.mark.parametrize("behaviour", ["complete", "noise", "late"])
def test_a_rank_that_said_it_completed_did(start: Start, behaviour: str) -> None:
    gang = start(behaviour, "complete")
    wait_until(lambda: not gang.running)
    assert gang.failure() is None
    complete = gang.complete()
    assert complete is not None
    assert complete.reason is Reason.COMPLETE


def test_a_kill_for_lack_of_memory_is_no_mere_crash(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 1\noom_kill 1\n")
    monkeypatch.setattr(worker_process, "MEMORY_EVENTS", events)
    gang = start("kill:9", "complete")
    events.write_text("low 0\noom 2\noom_kill 2\n")
    wait_until(lambda: not gang.running)
    failure = gang.failure()
    assert failure is not None
    assert failure.reason is Reason.OUT_OF_MEMORY


def test_ending_leaves_no_process_and_hears_nothing_more(start: Start, monitor: Monitor) -> None:
    gang = start("deaf", "train")
    wait_until(lambda: monitor.status().progress.step or monitor.metrics.registry.get_sample_value(
        "finetune_step_duration_seconds_count", {"namespace": "research", "job": "demo", "rank": "3"}))  # fmt: skip
    pids = [child.pid for child in gang._children]
    gang.end()
    assert not gang.running
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert monitor.complaint() == "the agent waits for the other nodes; no rank runs"


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (Reason.INVALID_DATA, Reason.CRASHED),
        (Reason.STORAGE_UNAVAILABLE, Reason.HANG),
        (Reason.HANG, Reason.RENDEZVOUS_FAILED),
        (Reason.RENDEZVOUS_FAILED, Reason.PREEMPTED_UNSAVED),
        (Reason.PREEMPTED_UNSAVED, Reason.PREEMPTED),
    ],
)
def test_causes_go_before_consequences(worse: Reason, better: Reason) -> None:
    assert severity(Outcome(reason=worse)) < severity(Outcome(reason=better))


def test_a_guarded_module_dies_with_its_parent() -> None:
    # The process in the middle starts `timeit`, which would run for minutes, and is killed.
    words = [*guard.command(signal.SIGKILL, "timeit"), "-n", "1", "-r", "1", "import time; time.sleep(300)"]
    script = (
        "import os, subprocess, sys, time\n"
        f"words = {words!r}\n"
        "words[4] = str(os.getpid())\n"
        "print(subprocess.Popen(words).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    middle = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert middle.stdout is not None
    child = int(middle.stdout.readline())
    time.sleep(0.3)
    middle.kill()
    middle.communicate()
    wait_until(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_orphans_are_reaped_and_ranks_are_not(start: Start) -> None:
    gang = start("exit:1", "train")
    orphan = os.posix_spawn("/bin/true", ["true"], {})
    wait_until(lambda: not _alive(orphan))
    gang.reap()
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)
    wait_until(gang.failure)
    assert gang.running
