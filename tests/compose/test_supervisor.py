import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compose.launch import Launch
from compose.supervisor.bounded_log import BoundedLog
from compose.supervisor.plan import LISTEN, Child, Plan, Probe
from tests.compose.cli import DEADLINE_S, alive, wait_for

_MARK = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); print('up', flush=True);"


@dataclass
class Running:
    process: subprocess.Popen[str]
    folder: Path
    output: Path
    seen: set[int] = field(default_factory=set)

    def state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.folder / "state.json").read_text())
        except FileNotFoundError:
            return {}
        self.seen |= {child["pid"] for child in state["children"] if child["pid"]}
        return state

    def child(self, name: str) -> dict[str, Any]:
        return next(one for one in self.state()["children"] if one["name"] == name)

    def until(self, phase: str) -> None:
        wait_for(lambda: self.state().get("phase") == phase)

    def said(self) -> str:
        return self.output.read_text()


@contextmanager
def supervised(folder: Path, *children: Child, **settings: Any) -> Iterator[Running]:
    plan = Plan(
        run_folder=str(folder),
        log_folder=str(folder),
        children=children,
        started_at=time.time(),
        banner=("it is all there",),
        **settings,
    )
    (folder / "plan.json").write_text(plan.to_json())
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    command = Launch(None, _Folder(folder / "plan.json"), lock, ()).command()  # type: ignore[arg-type]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, pass_fds=(lock,)
        )
    os.close(lock)
    running = Running(process, folder, folder / "output")
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pid in running.seen:
            if alive(pid):
                wait_for(lambda pid=pid: not alive(pid))


@dataclass
class _Folder:
    plan_file: Path


def worker(folder: Path, name: str, then: str = "time.sleep(600)", **changes: Any) -> Child:
    mark = str(folder / f"{name}.ready")
    return Child(
        **{
            "name": name,
            "argv": (sys.executable, "-S", "-c", _MARK + then, mark),
            "ready": Probe("file", mark),
            "env": {},
            **changes,
        }
    )


def test_everything_is_started_and_told_once(tmp_path: Path) -> None:
    with supervised(tmp_path, worker(tmp_path, "one"), worker(tmp_path, "two")) as running:
        running.until("ready")
        assert [child["state"] for child in running.state()["children"]] == ["ready", "ready"]
        wait_for(lambda: running.said().count("it is all there") == 1)
        assert running.state()["pid"] == running.process.pid


def test_a_child_that_is_killed_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    with supervised(tmp_path, worker(tmp_path, "one"), worker(tmp_path, "two")) as running:
        running.until("ready")
        before = {name: running.child(name)["pid"] for name in ("one", "two")}
        os.kill(before["one"], signal.SIGKILL)
        wait_for(lambda: running.child("one")["restarts"] == 1)
        wait_for(lambda: running.child("one")["state"] == "ready")

        assert running.child("one")["pid"] not in (0, before["one"])
        assert running.child("one")["last_exit"] == "was killed by SIGKILL"
        assert running.child("two")["pid"] == before["two"]
        assert f"one (pid {before['one']}) was killed by SIGKILL" in running.said()
        assert running.said().count("it is all there") == 1


def test_pauses_between_restarts_grow(tmp_path: Path) -> None:
    dying = "sys.exit(7) if len(sys.argv[1]) else None"
    steady = worker(tmp_path, "steady")
    flaky = worker(tmp_path, "flaky", then=f"time.sleep(0.2); {dying}")
    with supervised(tmp_path, steady, flaky, restart_pause_s=0.01) as running:
        running.until("ready")
        wait_for(lambda: running.child("flaky")["restarts"] >= 4)
        pauses = [
            float(line.split("again in ")[1].split(" s")[0])
            for line in running.said().splitlines()
            if "again in" in line
        ]
        assert pauses == sorted(pauses)
        assert pauses[-1] > pauses[0]
        assert "flaky" in running.said()
        assert "ended with 7" in running.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_leaves_no_process(tmp_path: Path, number: int) -> None:
    with supervised(tmp_path, worker(tmp_path, "one"), worker(tmp_path, "two")) as running:
        running.until("ready")
        running.process.send_signal(number)
        assert running.process.wait(DEADLINE_S) == 0
        assert running.state()["phase"] == "stopped"
        assert len(running.seen) == 2
        assert not any(alive(pid) for pid in running.seen)


def test_children_stop_in_the_reverse_order(tmp_path: Path) -> None:
    order = tmp_path / "order"
    last_words = (
        "import signal;"
        "signal.signal(signal.SIGTERM, lambda *_: (open({order!r}, 'a').write({name!r} + ' '),"
        " sys.exit(0)));"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    children = [
        Child(
            name=name,
            argv=(
                *(sys.executable, "-S", "-c"),
                "import pathlib, sys, time;" + last_words.format(order=str(order), name=name),
                str(tmp_path / f"{name}.ready"),
            ),
            ready=Probe("file", str(tmp_path / f"{name}.ready")),
            env={},
        )
        for name in ("first", "second", "third")
    ]
    with supervised(tmp_path, *children) as running:
        running.until("ready")
        running.process.terminate()
        assert running.process.wait(DEADLINE_S) == 0
        assert order.read_text().split() == ["third", "second", "first"]


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = worker(
        tmp_path,
        "deaf",
        then="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf',"
        " flush=True); time.sleep(600)",
    )
    with supervised(tmp_path, deaf, stop_timeout_s=0.3) as running:
        running.until("ready")
        wait_for(lambda: "deaf" in (tmp_path / "deaf.log").read_text())
        running.process.terminate()
        assert running.process.wait(DEADLINE_S) == 0
        assert "does not stop: killing it" in running.said()
        assert not any(alive(pid) for pid in running.seen)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with supervised(
        tmp_path, worker(tmp_path, "one"), worker(tmp_path, "two", orphan_signal="SIGTERM")
    ) as running:
        running.until("ready")
        running.process.kill()
        running.process.wait(DEADLINE_S)
        assert len(running.seen) == 2
        for pid in running.seen:
            wait_for(lambda pid=pid: not alive(pid))


def test_a_child_that_never_works_ends_the_start_with_its_own_words(tmp_path: Path) -> None:
    broken = Child(
        name="broken",
        argv=(sys.executable, "-S", "-c", "import sys; sys.exit('no such luck')"),
        ready=Probe("file", str(tmp_path / "never")),
        env={},
    )
    with supervised(tmp_path, worker(tmp_path, "one"), broken, restart_pause_s=0.01) as running:
        assert running.process.wait(DEADLINE_S) == 1
        assert "broken does not start" in running.said()
        assert "no such luck" in running.said()
        assert "it is all there" not in running.said()
        assert running.state()["phase"] == "failed"
        assert not any(alive(pid) for pid in running.seen)


def test_a_start_that_takes_too_long_names_who_is_late(tmp_path: Path) -> None:
    late = worker(tmp_path, "late", ready=Probe("file", str(tmp_path / "never")))
    with supervised(tmp_path, worker(tmp_path, "one"), late, start_timeout_s=0.5) as running:
        assert running.process.wait(DEADLINE_S) == 1
        assert "not ready within 0.5 s: late" in running.said()


def test_a_binary_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = Child("missing", ("/no/such/binary",), Probe("file", "/no/such/mark"), {})
    with supervised(tmp_path, missing, restart_pause_s=0.01) as running:
        assert running.process.wait(DEADLINE_S) == 1
        assert "/no/such/binary: No such file or directory" in running.said()


def test_a_child_waits_for_what_it_needs_but_not_for_ever_once_all_was_ready(
    tmp_path: Path,
) -> None:
    needed = tmp_path / "needed"
    waits = worker(tmp_path, "waits", after=Probe("file", str(needed)), after_limit_s=0.3)
    with supervised(tmp_path, worker(tmp_path, "other"), waits) as running:
        wait_for(lambda: running.state() and running.child("other")["state"] == "ready")
        assert running.child("waits")["state"] == "waiting"
        needed.touch()
        running.until("ready")
        needed.unlink()
        os.kill(running.child("waits")["pid"], signal.SIGKILL)
        wait_for(lambda: running.child("waits")["restarts"] == 1)
        wait_for(lambda: running.child("waits")["state"] == "ready")


def test_a_socket_is_held_open_while_its_child_is_away(tmp_path: Path) -> None:
    path = tmp_path / "held.sock"
    serve = (
        "import os, socket; s = socket.socket(fileno=int(sys.argv[2]));\n"
        "while True:\n  c, _ = s.accept(); c.sendall(str(os.getpid()).encode()); c.close()"
    )
    child = worker(tmp_path, "serves", then=serve, listen=str(path))
    child = dataclasses.replace(child, argv=(*child.argv, LISTEN))

    def asked() -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(path))
            return int(connection.recv(100))

    with supervised(tmp_path, child, restart_pause_s=0.5) as running:
        running.until("ready")
        first = asked()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: running.child("serves")["state"] == "pausing")
        assert asked() != first  # connected while nobody was there, answered by the next one
        running.process.terminate()
        assert running.process.wait(DEADLINE_S) == 0
        assert not path.exists()


def test_children_do_not_see_the_settings_of_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALBOX_ADMIN_PASSWORD", "swordfish")
    monkeypatch.setenv("ORDINARY", "kept")
    tells = worker(
        tmp_path,
        "tells",
        then="import os; print(sorted(os.environ.items()), flush=True); time.sleep(600)",
        env={"ADDED": "too"},
    )
    with supervised(tmp_path, tells) as running:
        running.until("ready")
        log = wait_for(
            lambda: "ORDINARY" in (text := (tmp_path / "tells.log").read_text()) and text
        )
        assert "ADDED" in log
        assert "SIGNALBOX" not in log


def test_a_port_is_probed(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        closed = worker(tmp_path, "asked", ready=Probe("tcp", f"127.0.0.1:{port}"))
        with supervised(tmp_path, closed) as running:
            wait_for(lambda: running.state() and running.child("asked")["state"] == "starting")
            listener.listen(8)
            running.until("ready")


def test_the_supervisor_is_small(tmp_path: Path) -> None:
    with supervised(tmp_path, worker(tmp_path, "one")) as running:
        running.until("ready")
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        resident_kb = int(status.split("VmRSS:")[1].split()[0])
        assert resident_kb < 20_000


def test_a_log_is_bounded(tmp_path: Path) -> None:
    log = BoundedLog(str(tmp_path / "log"), max_bytes=1000)
    for number in range(100):
        log.write(f"line {number:04} {'x' * 40}\n".encode())
    log.close()
    assert (tmp_path / "log").stat().st_size <= 1000
    assert (tmp_path / "log.1").stat().st_size <= 1000
    assert "line 0099" in (tmp_path / "log").read_text()
    kept = (tmp_path / "log.1").read_text() + (tmp_path / "log").read_text()
    numbers = [int(line.split()[1]) for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 100))
