"""Ranks that the spare forks behave like ranks that are started as new interpreters."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.agents import is_alive
from tests.support.waiting import wait_for

from finetune_trainer.agent import fork_server, memory, spare
from finetune_trainer.agent.monitor import Monitor
from finetune_trainer.agent.settings import Settings
from finetune_trainer.agent.worker_group import WorkerGroup
from finetune_trainer.protocol.imports import ImportRecord
from finetune_trainer.protocol.outcome import Reason

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the spare needs Linux")


@pytest.fixture
def is_forked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids of ranks that the spare has forked."""
    pids: list[int] = []
    fork = spare.Spare._request_fork

    def recorded(self: spare.Spare, *arguments: object) -> int:
        pids.append(fork(self, *arguments))  # type: ignore[arg-type]
        return pids[-1]

    monkeypatch.setattr(spare.Spare, "_request_fork", recorded)
    return pids


def prepare(workers: WorkerGroup, settings: Settings, *modules: str) -> None:
    """Let the spare import the modules, and wait until it is ready."""
    ImportRecord(modules=["json", "fractions", "no.such.module", *modules]).write(settings.work_dir)
    is_ready(workers, True)


def is_ready(workers: WorkerGroup, expected: bool) -> None:
    def look() -> bool:
        workers.prepare_restart()
        return workers._launcher.spare.is_ready is expected

    wait_for(look, f"is_ready {expected}")


@pytest.fixture
def prepared(start, settings: Settings) -> WorkerGroup:
    """A group whose next ranks are forked."""
    workers = start("complete", "complete")
    prepare(workers, settings)
    workers.shut_down()
    return workers


def restart(workers: WorkerGroup, settings: Settings, *behaviors: str) -> WorkerGroup:
    for record in settings.cache_dir.glob("attempt-*"):
        record.unlink()
    settings.document.write_text(json.dumps({str(2 + index): [behavior] for index, behavior in enumerate(behaviors)}))
    workers.start(2, "localhost:1", 1)
    return workers


def record(settings: Settings, rank: int) -> dict[str, object]:
    path = settings.cache_dir / f"attempt-{rank}-0"
    wait_for(path.exists, f"rank {rank}")
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("behavior", "reason", "message"),
    [
        ("exit:1", Reason.CRASHED, "rank 3 on node 1 exited with code 1 ("),
        ("exit:77", Reason.CRASHED, "rank 3 on node 1 exited with code 77 ("),
        ("kill:9", Reason.CRASHED, "rank 3 on node 1 was killed by signal 9 (SIGKILL)"),
        ("kill:11", Reason.CRASHED, "rank 3 on node 1 was killed by signal 11 (SIGSEGV)"),
        ("fail:InvalidData:0", Reason.INVALID_DATA, "rank 3 reports InvalidData"),
    ],
)
def test_failures_are_the_same(
    prepared: WorkerGroup, settings: Settings, is_forked: list[int], behavior: str, reason: Reason, message: str
) -> None:
    workers = restart(prepared, settings, "complete", behavior)
    wait_for(lambda: not workers.is_running, "the end of the ranks")
    failure = workers.first_failure()
    assert failure is not None
    assert (failure.reason, failure.rank, failure.node) == (reason, 3, 1)
    assert failure.message.startswith(message)
    assert len(is_forked) == 2


def test_a_forked_rank_completes_with_its_arguments_and_events(
    prepared: WorkerGroup, settings: Settings, monitor: Monitor, is_forked: list[int]
) -> None:
    workers = restart(prepared, settings, "complete", "complete")
    wait_for(lambda: not workers.is_running, "the end of the ranks")
    completion = workers.completion()
    assert completion is not None
    assert completion.reason is Reason.COMPLETE
    records = [record(settings, rank) for rank in (2, 3)]
    assert [(entry["rank"], entry["local_rank"], entry["attempt"]) for entry in records] == [(2, 0, 2), (3, 1, 2)]
    assert [entry["pid"] for entry in records] == is_forked
    labels = {"namespace": "research", "job": "demo", "rank": "3"}
    assert monitor.metrics.registry.get_sample_value("finetune_step_duration_seconds_count", labels) == 2  # of both attempts


def test_a_forked_rank_is_a_child_in_its_own_group_with_normal_priority(prepared: WorkerGroup, settings: Settings) -> None:
    restart(prepared, settings, "train", "train")
    pids = [int(str(record(settings, rank)["pid"])) for rank in (2, 3)]
    for pid in pids:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert (parent, os.getpgid(pid), os.getpriority(os.PRIO_PROCESS, pid)) == (
            os.getpid(), pid, os.getpriority(os.PRIO_PROCESS, 0),
        )  # fmt: skip
        sockets = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [target for target in sockets if target.startswith("socket:")]
    prepared.shut_down()
    assert not any(is_alive(pid) for pid in pids)


def test_stacks_of_a_forked_rank_name_its_own_code(prepared: WorkerGroup, settings: Settings) -> None:
    restart(prepared, settings, "silent", "silent")
    for rank in (2, 3):
        record(settings, rank)
    summaries = [stack.summary for stack in prepared.log_stacks()]
    assert all(summary.startswith("is in hang (") for summary in summaries)
    assert not any("fork_server" in summary for summary in summaries)


def test_without_a_ready_spare_ranks_start_as_new_processes(
    prepared: WorkerGroup, settings: Settings, is_forked: list[int]
) -> None:
    server = prepared._launcher.spare.pid
    assert server is not None
    os.kill(server, signal.SIGKILL)
    workers = restart(prepared, settings, "complete", "exit:3")
    wait_for(lambda: not workers.is_running, "the end of the ranks")
    failure = workers.first_failure()
    assert failure is not None
    assert failure.reason is Reason.INVALID_DATA
    assert is_forked == []
    is_ready(workers, True)  # another one


def test_a_spare_that_stops_answering_leaves_no_second_rank(
    prepared: WorkerGroup, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = prepared._launcher.spare.pid
    connection = prepared._launcher.spare._connection
    assert server is not None
    assert connection is not None
    connection.settimeout(0.3)
    os.kill(server, signal.SIGSTOP)
    workers = restart(prepared, settings, "train", "train")
    pids = {int(str(record(settings, rank)["pid"])) for rank in (2, 3)}
    assert pids == {worker.pid for worker in workers._workers}
    assert not is_alive(server)


def test_a_rank_whose_request_was_given_up_exits(prepared: WorkerGroup, settings: Settings) -> None:
    reading, writing = os.pipe()
    telemetry_reading, telemetry = os.pipe()
    pid = prepared._launcher.spare._request_fork(["--rank", "2"], telemetry, reading)
    os.close(writing)
    os.close(telemetry)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    with os.fdopen(telemetry_reading, "rb") as pipe:
        assert pipe.read() == b""
    os.close(reading)


def test_forked_ranks_die_with_their_agent(prepared: WorkerGroup, settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(
        "import sys, time\n"
        "from tests.support.waiting import wait_for\n"
        "from finetune_trainer.agent.launcher import Launcher\n"
        "from finetune_trainer.agent.settings import Settings\n"
        "import os, pickle\n"
        "settings = pickle.load(open(sys.argv[1], 'rb'))\n"
        "launcher = Launcher(settings, os.environ)\n"
        "from finetune_trainer.protocol.imports import ImportRecord\n"
        "ImportRecord(modules=['json']).write(settings.work_dir)\n"
        "wait_for(lambda: (launcher.spare.prepare(), launcher.spare.is_ready)[1], 'spare')\n"
        "reading, writing = os.pipe()\n"
        "process = launcher.spare.fork([], writing)\n"
        "print(process.pid, launcher.spare.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    import dataclasses
    import pickle

    (tmp_path / "sleeping_rank.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "settings").write_bytes(pickle.dumps(dataclasses.replace(settings, rank_module="sleeping_rank")))
    root = Path(__file__).parents[4]
    environment = os.environ | {"PYTHONPATH": f"{root}:{tmp_path}"}
    agent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "settings")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert agent.stdout is not None
    pids = [int(word) for word in agent.stdout.readline().split()]
    assert len(pids) == 2
    agent.kill()
    agent.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the end of rank and spare")


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "run threads that a fork",
        ),
        ("raise RuntimeError('a library that cannot be imported twice')", "a library that cannot be imported twice"),
    ],
)
def test_a_process_that_cannot_be_forked_is_not_used(
    start, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: str,
    reason: str,
) -> None:  # fmt: skip
    (tmp_path / "unforkable.py").write_text(module)
    workers = start("train", "train")
    launcher = workers._launcher
    launcher.spare._environment = dict(launcher._environment) | {
        "PYTHONPATH": f"{launcher._environment['PYTHONPATH']}:{tmp_path}"
    }
    ImportRecord(modules=["unforkable"]).write(settings.work_dir)
    caplog.set_level("INFO")

    def is_given_up() -> bool:
        workers.prepare_restart()
        return reason in caplog.text

    wait_for(is_given_up, "the message")
    assert launcher.spare.pid is None
    time.sleep(spare.CHECK_SECONDS)
    workers.prepare_restart()
    assert launcher.spare.pid is None  # for good


@pytest.mark.parametrize("free", [spare.NEEDED_BYTES - 1, spare.RESERVED_BYTES - 1])
def test_without_memory_for_it_there_is_no_spare(
    start, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int
) -> None:
    caplog.set_level("INFO")
    workers = start("train", "train")
    if free < spare.RESERVED_BYTES:  # it becomes scarce while there is one
        prepare(workers, settings)
    else:
        ImportRecord(modules=[]).write(settings.work_dir)
    monkeypatch.setattr(memory, "available_bytes", lambda: free)

    def is_given_up() -> bool:
        workers.prepare_restart()
        return "because there is no spare process" in caplog.text

    wait_for(is_given_up, "the message")
    assert "MiB of memory are" in caplog.text
    assert workers._launcher.spare.pid is None


CGROUP_2 = {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": "anon 1\ninactive_file 300\n"}
CGROUP_1 = {
    "memory/memory.limit_in_bytes": "2000\n", "memory/memory.usage_in_bytes": "500\n",
    "memory/memory.stat": "total_inactive_file 100\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "machine", "expected"),
    [
        pytest.param(CGROUP_2, "MemAvailable:  10 kB\n", 400, id="limit of cgroup v2"),
        pytest.param(CGROUP_1, "MemAvailable:  10 kB\n", 1600, id="limit of cgroup v1"),
        pytest.param(CGROUP_2 | {"memory.max": "max\n"}, "MemFree: 1 kB\nMemAvailable:  10 kB\n", 10240, id="no limit"),
        pytest.param(CGROUP_1, "MemAvailable:  1 kB\n", 1024, id="the machine has less"),
        pytest.param({}, "", None, id="unknown"),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], machine: str, expected: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "meminfo").write_text(machine)
    assert memory.available_bytes(tmp_path, tmp_path / "meminfo") == expected


def test_a_gpu_session_cannot_be_forked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "nvidia-uvm"
    device.touch()
    monkeypatch.setattr(fork_server, "_GPU_SESSIONS", (str(device),))
    monkeypatch.setattr(fork_server, "_FORK_SAFE_THREADS", _own_threads())
    fork_server._require_forkable()
    with device.open(), pytest.raises(fork_server.NotForkableError, match="has started the GPU's driver"):
        fork_server._require_forkable()


def _own_threads() -> tuple[str, ...]:
    return tuple({(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()})


def test_a_run_that_is_over_soon_has_no_spare(settings: Settings) -> None:
    limits = dataclasses.replace(settings.limits, spare_delay=60.0)
    own = spare.Spare(dataclasses.replace(settings, limits=limits), dict(os.environ))
    ImportRecord(modules=["json"]).write(settings.work_dir)
    own.prepare()
    assert own.pid is None
    earlier = time.time() - 61
    os.utime(ImportRecord.path(settings.work_dir), (earlier, earlier))
    wait_for(lambda: own.prepare() or own.pid is not None, "the spare of a longer run")
    own.close()
