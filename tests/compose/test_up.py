"""A whole gateway, started in the background as a user would, killed part by part, stopped."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from compose.demo import sample_api
from compose.running import Process
from tests.compose.cli import DEADLINE_S, SIGNALBOX, Cli, alive, wait_for

PASSWORD = re.compile(r"password +(\S+)\n +shown this once")


def status(url: str, **request: Any) -> int:
    """The status of one GET; 0 when nobody answers."""
    try:
        return httpx.get(url, timeout=10, trust_env=False, **request).status_code
    except httpx.TransportError:
        return 0


def credentials(cli: Cli) -> tuple[str, str]:
    known = json.loads((cli.data / "client.json").read_text())
    return known["user"], known["password"]


@contextlib.contextmanager
def up(cli: Cli, *arguments: str) -> Iterator[subprocess.CompletedProcess[str]]:
    started = cli.run("up", "--detach", *arguments)
    try:
        assert started.returncode == 0, started.stderr
        yield started
    finally:
        cli.run("down")


@pytest.fixture(scope="module", params=["basic", "standard"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cli, str]]:
    cli = Cli(tmp_path_factory.mktemp(request.param) / "data")
    with up(cli, "--tier", request.param, "--demo") as started:
        yield cli, started.stdout


def test_the_first_curl_that_is_printed_works(demo: tuple[Cli, str]) -> None:
    _, said = demo
    found = re.search(r"try +curl (\S+)", said)
    assert found is not None
    wait_for(lambda: status(found[1]) == 200)
    assert httpx.get(found[1], trust_env=False).json() == {"greeting": "Hello, you!"}


def test_the_start_is_told_with_its_duration_and_its_addresses(demo: tuple[Cli, str]) -> None:
    cli, said = demo
    assert re.search(r"^ready in \d+\.\d s$", said, re.MULTILINE)
    assert cli.url in said
    assert cli.apis.removesuffix("/rest-apis") in said


def test_the_generated_password_is_shown_and_opens_the_management_api(
    demo: tuple[Cli, str],
) -> None:
    cli, said = demo
    shown = PASSWORD.search(said)
    assert shown is not None
    assert credentials(cli) == ("admin", shown[1])
    assert status(cli.apis, auth=credentials(cli)) == 200
    assert status(cli.apis, auth=("admin", "wrong")) == 401
    for log in (cli.data / "logs").iterdir():
        assert shown[1] not in log.read_text()


def test_a_second_gateway_on_the_same_data_folder_is_refused(demo: tuple[Cli, str]) -> None:
    cli, _ = demo
    said = cli.refused("up")
    pid = cli.processes()["supervisor"].pid
    assert f"a gateway already runs on the data folder {cli.data} (pid {pid})" in said
    assert "signalbox down" in said


@pytest.mark.parametrize("victim", ["nats-server", "components", "demo-backend", "envoy", "valkey"])
def test_what_is_killed_comes_back_with_all_that_was_accepted(
    demo: tuple[Cli, str], victim: str
) -> None:
    cli, _ = demo
    before = cli.processes()
    if victim not in before:
        pytest.skip("not of this tier")
    os.kill(before[victim].pid, signal.SIGKILL)
    wait_for(lambda: restarted(cli, victim, before))
    name = f"after-{victim}"
    document = sample_api(int(cli_port(cli, "demo")))
    document["metadata"]["name"] = name
    document["spec"] |= {"displayName": name, "context": f"/{name}"}
    wait_for(lambda: created(cli, document))
    wait_for(lambda: status(f"{cli.url}/{name}/greetings/again") == 200)
    wait_for(lambda: status(f"{cli.url}/hello/v1/greetings/again") == 200)
    kept = httpx.get(cli.apis, auth=credentials(cli), trust_env=False).json()
    assert {"hello", name} <= {api["metadata"]["name"] for api in kept["apis"]}


def restarted(cli: Cli, name: str, before: dict[str, Process]) -> bool:
    now = cli.processes()[name]
    return now.restarts > before[name].restarts and now.state == "ready"


def created(cli: Cli, document: dict[str, Any]) -> bool:
    try:
        answer = httpx.post(
            cli.apis, json=document, auth=credentials(cli), timeout=20, trust_env=False
        )
    except httpx.TransportError:
        return False
    assert answer.status_code in (201, 409, 503), answer.text
    return answer.status_code != 503


def cli_port(cli: Cli, name: str) -> int:
    settings = json.loads((cli.data / "run" / "settings.json").read_text())
    return int(settings["gateway"][f"{name}_port"])


def test_traffic_goes_on_while_everything_but_the_router_is_dead(demo: tuple[Cli, str]) -> None:
    cli, _ = demo
    wait_for(lambda: status(f"{cli.url}/hello/v1/greetings/x") == 200)
    statuses: list[int] = []
    stop = threading.Event()

    def call() -> None:
        with httpx.Client(trust_env=False) as client:
            while not stop.is_set():
                statuses.append(client.get(f"{cli.url}/hello/v1/greetings/x").status_code)

    # in the basic tier each holds for the other what neither stores: one after the other
    together = "valkey" in cli.processes()
    victims = [("nats-server", "components")] if together else [("components",), ("nats-server",)]
    caller = threading.Thread(target=call)
    caller.start()
    try:
        for part in victims:
            before = cli.processes()
            for victim in part:
                os.kill(before[victim].pid, signal.SIGKILL)
            for victim in part:
                wait_for(lambda victim=victim, before=before: restarted(cli, victim, before))
    finally:
        stop.set()
        caller.join(DEADLINE_S)
    assert len(statuses) > 50
    assert set(statuses) == {200}


def test_the_doctor_finds_the_gateway_well(demo: tuple[Cli, str]) -> None:
    cli, _ = demo

    def well() -> bool:
        ran = cli.run("doctor")
        return ran.returncode == 0 and "router: " in ran.stdout

    wait_for(well)


def test_its_logs_can_be_read(demo: tuple[Cli, str]) -> None:
    cli, _ = demo
    said = cli.run("logs", "-n", "1000").stdout
    for process in ("components", "nats-server", "supervisor"):
        assert re.search(rf"^{process} +\| ", said, re.MULTILINE)
    assert "controller is ready" in cli.run("logs", "components", "-n", "1000").stdout


def test_memory_is_told_per_process(demo: tuple[Cli, str]) -> None:
    cli, _ = demo
    sizes = {name: one.resident_bytes for name, one in cli.processes().items()}
    assert sizes["supervisor"] < 20e6
    assert all(1e6 < size < 400e6 for size in sizes.values())


def test_a_stop_answers_what_is_in_flight_and_leaves_no_process(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    with up(cli, "--tier", "basic", "--demo"):
        wait_for(lambda: status(f"{cli.url}/hello/v1/greetings/x") == 200)
        pids = [one.pid for one in cli.processes().values()]
        answers: list[int] = []
        slow = threading.Thread(
            target=lambda: answers.append(status(f"{cli.url}/hello/v1/slow?seconds=2"))
        )
        slow.start()
        wait_for(lambda: in_flight(cli))
        stopped = cli.run("down")
        slow.join(DEADLINE_S)

        assert stopped.returncode == 0, stopped.stderr
        assert answers == [200]
        assert not any(alive(pid) for pid in pids)
        assert cli.refused("down").startswith("signalbox: no gateway runs")


def in_flight(cli: Cli) -> bool:
    admin = f"http://127.0.0.1:{cli.ports['envoy_admin']}"
    stats = httpx.get(f"{admin}/stats?filter=http.http.downstream_rq_active", trust_env=False).text
    return "downstream_rq_active: 1" in stats


def test_what_was_kept_is_there_after_a_stop_and_a_start(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    with up(cli, "--demo") as first:
        shown = PASSWORD.search(first.stdout)
        assert shown is not None
        document = sample_api(1)
        document["metadata"]["name"] = "kept"
        document["spec"] |= {"displayName": "kept", "context": "/kept"}
        assert created(cli, document)
    with up(cli) as second:
        assert "shown this once" not in second.stdout
        assert credentials(cli) == ("admin", shown[1])
        kept = httpx.get(f"{cli.apis}/kept", auth=credentials(cli), trust_env=False)
        assert kept.status_code == 200


def test_in_the_foreground_it_says_how_far_it_is_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    output = tmp_path / "output"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [SIGNALBOX, "up", "--tier", "basic", "--set", "admin_password=swordfish"],
            env=cli.environment(),
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: "Signalbox is ready" in output.read_text())
        assert "swordfish" not in output.read_text()
        pids = {name: one.pid for name, one in cli.processes().items()}
        assert pids["supervisor"] == process.pid
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
        assert not any(alive(pid) for pid in pids.values())
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_free_ports_gets_around_what_is_taken(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    other = Cli(tmp_path / "other", ports=cli.ports)
    with up(cli, "--tier", "basic"):
        with up(other, "--tier", "basic", "--free-ports") as started:
            said = re.search(r"gateway +http://127\.0\.0\.1:(\d+)", started.stdout)
            assert said is not None
            assert int(said[1]) != cli.ports["http"]
            assert status(f"http://127.0.0.1:{said[1]}/_gateway-health/ready") == 200
        assert status(f"{cli.url}/_gateway-health/ready") == 200
