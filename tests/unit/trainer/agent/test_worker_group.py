"""Outcomes of a node's ranks, which are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.agents import is_alive
from tests.support.waiting import wait_for

from finetune_trainer.agent import guard, worker_process
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.worker_group import WorkerGroup, cause_priority
from finetune_trainer.protocol.outcome import Outcome, Reason

Start = Callable[[str, str], WorkerGroup]


@pytest.mark.parametrize(
    ("rank_2", "rank_3", "reason", "rank", "message"),
    [
        ("complete", "exit:1", Reason.CRASHED, 3, "rank 3 on node 1 exited with code 1 (a rank died of "),
        ("complete", "exit:0", Reason.CRASHED, 3, "rank 3 on node 1 exited with code 0 without reporting its outcome"),
        ("complete", "exit:77", Reason.CRASHED, 3, "rank 3 on node 1 exited with code 77 "),
        ("complete", "exit:3", Reason.INVALID_DATA, 3, "rank 3 on node 1 exited with code 3 (a file or row of the data "),
        ("kill:9", "complete", Reason.CRASHED, 2, "rank 2 on node 1 was killed by signal 9 (SIGKILL)"),
        ("kill:11", "complete", Reason.CRASHED, 2, "rank 2 on node 1 was killed by signal 11 (SIGSEGV)"),
        (
            "kill:7",
            "complete",
            Reason.CRASHED,
            2,
            "rank 2 on node 1 was killed by signal 7 (SIGBUS): if /dev/shm was full, ",
        ),
        ("fail:RendezvousFailed:0", "exit:1", Reason.CRASHED, 3, "rank 3 on node 1 exited"),
        ("exit:1", "fail:InvalidData:0", Reason.INVALID_DATA, 3, "rank 3 reports InvalidData"),
        ("fail:Preempted:0", "fail:RendezvousFailed:0", Reason.RENDEZVOUS_FAILED, 3, "rank 3 reports RendezvousFailed"),
    ],
)
def test_reports_first_cause(start: Start, rank_2: str, rank_3: str, reason: Reason, rank: int, message: str) -> None:
    workers = start(rank_2, rank_3)
    wait_for(lambda: not workers.is_running, "the end of the ranks", 10)
    failure = workers.first_failure()
    assert failure is not None
    assert (failure.reason, failure.rank, failure.node) == (reason, rank, 1)
    assert failure.message.startswith(message)
    assert workers.completion() is None


@pytest.mark.parametrize("behavior", ["complete", "noise", "late"])
def test_reported_completion_takes_precedence_over_exit_code(start: Start, behavior: str) -> None:
    workers = start(behavior, "complete")
    wait_for(lambda: not workers.is_running, "the end of the ranks", 10)
    assert workers.first_failure() is None
    completion = workers.completion()
    assert completion is not None
    assert completion.reason is Reason.COMPLETE


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("MEMORY_EVENTS", "low 0\noom {}\noom_kill {}\n", id="cgroup v2"),
        pytest.param("MEMORY_EVENTS_OF_VERSION_1", "oom_kill_disable 0\nunder_oom 0\noom_kill {1}\n", id="cgroup v1"),
    ],
)
def test_reports_out_of_memory_kill(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str
) -> None:
    for name in ("MEMORY_EVENTS", "MEMORY_EVENTS_OF_VERSION_1"):
        monkeypatch.setattr(worker_process, name, tmp_path / name)
    events = tmp_path / file
    events.write_text(content.format(1, 1))
    workers = start("kill:9", "complete")
    events.write_text(content.format(2, 2))
    wait_for(lambda: not workers.is_running, "the end of the ranks", 10)
    failure = workers.first_failure()
    assert failure is not None
    assert failure.reason is Reason.OUT_OF_MEMORY


def test_shutdown_leaves_no_process_and_ignores_events(start: Start, monitor: Monitor) -> None:
    workers = start("ignore-sigterm", "train")
    step_count = "finetune_step_duration_seconds_count", {"namespace": "research", "job": "demo", "rank": "3"}
    wait_for(lambda: monitor.status().progress.step or monitor.metrics.registry.get_sample_value(*step_count), "the events", 10)
    pids = [worker.pid for worker in workers._workers]
    workers.shut_down()
    assert not workers.is_running
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert monitor.unready_reason() == "no rank is running: the agent waits for the other nodes"


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        (Reason.INVALID_DATA, Reason.CRASHED),
        (Reason.STORAGE_UNAVAILABLE, Reason.HANG),
        (Reason.HANG, Reason.RENDEZVOUS_FAILED),
        (Reason.RENDEZVOUS_FAILED, Reason.PREEMPTED_UNSAVED),
        (Reason.PREEMPTED_UNSAVED, Reason.PREEMPTED),
    ],
)
def test_causes_precede_consequences(cause: Reason, consequence: Reason) -> None:
    assert cause_priority(Outcome(reason=cause)) < cause_priority(Outcome(reason=consequence))


def test_guarded_module_dies_with_its_parent() -> None:
    # A parent process starts `timeit`, which would run for minutes, and is killed.
    command = [*guard.command(signal.SIGKILL, "timeit"), "-n", "1", "-r", "1", "import time; time.sleep(300)"]
    script = (
        "import os, subprocess, sys, time\n"
        f"command = {command!r}\n"
        "command[4] = str(os.getpid())\n"
        "print(subprocess.Popen(command).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not is_alive(pid), "the end of the child process", 10)


def test_reaps_orphans_but_not_ranks(start: Start) -> None:
    workers = start("exit:1", "train")
    orphan = os.posix_spawn("/bin/true", ["true"], {})
    wait_for(lambda: not is_alive(orphan), "the end of the orphan", 10)
    workers.reap_orphans()
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)
    wait_for(workers.first_failure, "the failure", 10)
    assert workers.is_running
