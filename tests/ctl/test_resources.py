"""`signalbox get`, `delete`, `keys`, `import --apply` and `status` against the real controller."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from bus.events import ApiPublished
from compose.data_folder import DataFolder
from compose.settings import Settings
from ctl.overview import PORTS
from tests.ctl import cli
from tests.ctl.resources import rest_api
from tests.ctl.running import Router, Running, running

FIXTURES = Path(__file__).parents[1] / "fixtures"
OWN_KEY = "k" * 36


def refusing_broken(event: ApiPublished) -> str | None:
    return "Envoy's own words" if event.api.id == "broken" else None


def named(name: str, **parts: Any) -> dict[str, Any]:
    document = rest_api(name, version=parts.pop("version", "v1.0"))
    document["metadata"] |= parts
    return document


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "data", router=Router("router-1", refusing_broken)) as one:
        async with one.http() as http:
            for document in (
                named("petstore", labels={"team": "shop"}),
                named("orders", version="v2.0"),
            ):
                assert (await http.post("/rest-apis", json=document)).status_code == 201
                name = document["metadata"]["name"]
                status = await http.get(f"/rest-apis/{name}/status", params={"waitSeconds": 30})
                assert status.json()["outcome"] == "live"
        yield one


async def test_a_list_is_a_table_with_what_the_routers_made_of_it(gateway: Running) -> None:
    result = await gateway.cli("get", "apis")
    assert (result.code, result.err) == (0, "")
    header, *rows = (line.split() for line in result.out.splitlines())
    assert header[:3] == ["NAME", "DISPLAY", "NAME"]
    assert [row[:7] for row in rows] == [
        ["orders", "orders", "v2.0", "/orders", "deployed", "1", "1/1"],
        ["petstore", "petstore", "v1.0", "/petstore", "deployed", "1", "1/1"],
    ]
    assert "\x1b" not in result.out


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("-l", "team=shop"), ["api/petstore"]),
        (("-l", "!team"), ["api/orders"]),
        (("--display-name", "orders"), ["api/orders"]),
        (("--version", "v2.0"), ["api/orders"]),
        (("--context", "/petstore"), ["api/petstore"]),
        (("--state", "undeployed"), []),
    ],
)
async def test_a_list_is_filtered(
    gateway: Running, arguments: tuple[str, ...], found: list[str]
) -> None:
    result = await gateway.cli("get", "rest-apis", *arguments, "-o", "name")
    assert result.code == 0, result.err
    assert result.out.split() == found


async def test_an_empty_list_says_so_beside_the_result(gateway: Running) -> None:
    result = await gateway.cli("get", "apis", "-l", "team=none")
    assert (result.code, result.out, result.err) == (0, "", "no apis found\n")
    as_json = await gateway.cli("get", "apis", "-l", "team=none", "-o", "json")
    assert json.loads(as_json.out) == []


async def test_one_is_one_document_and_several_are_several(gateway: Running) -> None:
    one = await gateway.cli("get", "api", "petstore", "-o", "json")
    assert json.loads(one.out)["status"]["revision"] == 1
    both = await gateway.cli("get", "RestApi", "petstore", "orders", "-o", "yaml")
    found = list(yaml.safe_load_all(both.out))
    assert [document["metadata"]["name"] for document in found] == ["petstore", "orders"]


async def test_what_get_prints_is_applied_without_a_change(gateway: Running) -> None:
    listed = await gateway.cli("get", "apis", "-o", "yaml")
    result = await gateway.cli("apply", "-f", "-", stdin=listed.out)
    assert result.code == 0, result.err
    assert "2 unchanged" in result.out


async def test_what_is_not_there_has_code_4(gateway: Running) -> None:
    result = await gateway.cli("get", "api", "nothing")
    assert (result.code, result.out) == (4, "")
    assert "'nothing' not found" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("get", "gateways"), "unknown kind 'gateways'; kinds are: RestApi (api, rest-apis)"),
        (("get", "api", "petstore", "-l", "a=b"), "give either names"),
        (("get", "apis", "-l", "a b"), "not a label selector"),
        (("delete", "api"), "give the names of what to delete"),
        (("delete",), "give either a kind and names, or files"),
        (("delete", "api", "x", "-f", "x.yaml"), "give either a kind and names, or files"),
        (("delete", "-f", "missing.yaml"), "missing.yaml: no such file or directory"),
        (("keys", "update", "petstore", "k"), "nothing to change"),
        (("keys", "create", "petstore", "--expires-in", "long"), "not a lifetime"),
        (("keys", "create", "petstore", "--key-file", "missing"), "missing cannot be read"),
        (("get", "apis", "--url", "gateway"), "not an http or https URL"),
        (("get", "apis", "--url", "http://[::1"), "not an http or https URL"),
        (("get", "api", ".."), "'..' is not a name"),
    ],
)
async def test_a_wrong_call_has_code_2(
    gateway: Running, arguments: tuple[str, ...], said: str
) -> None:
    result = await gateway.cli(*arguments)
    assert result.code == 2, result
    assert said in result.err
    assert "Traceback" not in result.err


async def test_delete_waits_until_it_is_gone(gateway: Running) -> None:
    result = await gateway.cli("delete", "api", "petstore", "orders")
    assert (result.code, result.err) == (0, "")
    lines = sorted(result.out.splitlines())
    assert lines[0].startswith("api/orders deleted, gone from 1 of 1 routers, revision 2")
    assert lines[1].startswith("api/petstore deleted, gone from 1 of 1 routers, revision 2")
    again = await gateway.cli("delete", "api", "petstore")
    assert again.code == 4
    assert "api/petstore failed" in again.err
    ignored = await gateway.cli("delete", "api", "petstore", "--ignore-not-found")
    assert (ignored.code, ignored.out, ignored.err) == (0, "", "")


async def test_delete_takes_files(gateway: Running) -> None:
    file = gateway.write("both.yaml", named("petstore"), named("unknown"))
    result = await gateway.cli("delete", "-f", file, "--ignore-not-found", "--no-wait")
    assert (result.code, result.err) == (0, "")
    assert result.out == "api/petstore deleted, revision 2\n"


async def test_a_key_is_shown_once_listed_masked_and_revoked(gateway: Running) -> None:
    made = await gateway.cli("keys", "create", "petstore", "--name", "mobile", "-o", "key")
    assert made.code == 0, made.err
    key = made.out.strip()
    assert key.startswith("apip_")
    assert len(key) == 69
    listed = await gateway.cli("keys", "list", "petstore")
    assert key not in listed.out
    assert key[-5:] in listed.out
    assert listed.out.splitlines()[1].split()[0] == "mobile"
    new = await gateway.cli("keys", "regenerate", "petstore", "mobile", "--expires-in", "90d")
    assert new.code == 0, new.err
    assert "key mobile of api/petstore, expires 20" in new.out
    assert "apip_" in new.out
    assert key not in new.out
    assert "it is not shown again" in new.err
    gone = await gateway.cli("keys", "revoke", "petstore", "mobile")
    assert (gone.code, gone.out) == (0, "key mobile of api/petstore revoked\n")
    empty = await gateway.cli("keys", "list", "petstore")
    assert (empty.out, empty.err) == ("", "api/petstore has no keys\n")
    assert (await gateway.cli("keys", "revoke", "petstore", "mobile")).code == 4
    assert (await gateway.cli("keys", "list", "nothing")).code == 4


async def test_a_key_of_another_issuer_comes_from_a_file_and_is_replaced(
    gateway: Running, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(OWN_KEY + "\n")
    create = ("keys", "create", "petstore", "--name", "partner", "--key-file")
    made = await gateway.cli(
        *create, str(tmp_path / "key"), "--issuer", "idp", "--external-ref", "42", "-o", "json"
    )
    assert made.code == 0, made.err
    shown = json.loads(made.out)["apiKey"]
    assert (shown["source"], shown["issuer"], shown["externalRefId"]) == ("external", "idp", "42")
    assert OWN_KEY not in made.out
    changed = await gateway.cli(
        "keys", "update", "petstore", "partner", "--key-file", "-", stdin="x" * 35 + "12345\n"
    )
    assert changed.code == 0, changed.err
    listed = json.loads((await gateway.cli("keys", "list", "petstore", "-o", "json")).out)
    assert listed[0]["apiKey"].endswith("12345")
    short = await gateway.cli(*create[:-2], "short", "--key-file", "-", stdin="short")
    assert short.code == 1
    assert "apiKey: must be 36 to 512 characters long" in short.err
    taken = await gateway.cli(*create[:-1])
    assert taken.code == 1
    assert "'partner' already exists" in taken.err


async def test_an_openapi_document_is_imported_and_live(gateway: Running) -> None:
    source = str(FIXTURES / "petstore.yaml")
    arguments = ("import", "openapi", source, "--upstream", "http://127.0.0.1:1/v2")
    result = await gateway.cli(*arguments, "--name", "pets", "--apply")
    assert result.code == 0, result.err
    assert result.out.startswith("api/pets created, live on 1 of 1 routers, revision 1")
    assert "note: version is 'v1.0', the document says '1.0.0'" in result.err
    printed = await gateway.cli(*arguments, "--name", "pets")
    piped = await gateway.cli("apply", "-f", "-", stdin=printed.out)
    assert "api/pets unchanged" in piped.out


async def test_strict_import_refuses_what_cannot_be_expressed(tmp_path: Path) -> None:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Files", "version": "v1.0"},
        "paths": {"/{name}.json": {"get": {}}, "/ok": {"get": {}}},
    }
    env = cli.environment(tmp_path)
    text = json.dumps(document)
    command = ("import", "openapi", "-", "--upstream", "http://u.example")
    lenient = await cli.run(*command, env=env, stdin=text)
    assert lenient.code == 0
    assert "left out: GET /{name}.json: a path parameter must fill" in lenient.err
    strict = await cli.run(*command, "--strict", env=env, stdin=text)
    assert (strict.code, strict.out) == (1, "")
    missing = await cli.run("import", "openapi", "missing.json", env=env)
    assert missing.code == 2
    assert "missing.json: No such file" in missing.err


async def test_status_is_well_when_everything_is_live(gateway: Running) -> None:
    result = await gateway.cli("status")
    assert (result.code, result.err) == (0, "")
    assert f"management  {gateway.url}" in result.out
    assert "router-1  1.40.0  connected   2/2" in result.out
    assert "2 APIs: 2 deployed, 0 undeployed; 2 live on all routers" in result.out


async def test_status_names_what_is_refused(gateway: Running) -> None:
    file = gateway.write("broken.yaml", named("broken"))
    assert (await gateway.cli("apply", "-f", file)).code == 5
    result = await gateway.cli("status")
    assert result.code == 5
    assert "refused: api/broken revision 1: Envoy's own words" in result.out
    found = json.loads((await gateway.cli("status", "-o", "json")).out)
    assert found["apis"]["refused"] == [
        {"name": "broken", "revision": 1, "reason": "Envoy's own words"}
    ]
    assert found["routers"] == [
        {"node": "router-1", "version": "1.40.0", "connected": True, "apis": 2}
    ]


async def test_status_shows_the_processes_of_this_machine(gateway: Running) -> None:
    folder = DataFolder(gateway.folder)
    folder.create()
    settings = Settings().with_values(tier="basic", admin_port=gateway.ports.admin, http_port=8081)
    folder.settings_file.write_text(json.dumps(settings.dump()))
    child = {"name": "envoy", "pid": 7, "state": "ready", "restarts": 2, "last_exit": "signal 9"}
    folder.state_file.write_text(json.dumps({"phase": "ready", "children": [child]}))
    down = await gateway.cli("status")
    assert "gateway     down, tier basic\n" in down.out
    lock = folder.lock()
    try:
        result = await gateway.cli("status")
        as_json = json.loads((await gateway.cli("status", "-o", "json")).out)
        elsewhere = await gateway.cli(
            "status", "--url", gateway.url.replace("127.0.0.1", "localhost")
        )
    finally:
        os.close(lock)
    assert result.code == 0, result.err
    assert f"management  {gateway.url}, healthy\n" in result.out
    assert f"gateway     ready, tier basic, pid {os.getpid()}\n" in result.out
    assert f"http 8081, https 8443, management 9090, admin {gateway.ports.admin}" in result.out
    assert re.search(r"^envoy +7  ready +2  signal 9$", result.out, re.MULTILINE)
    assert set(as_json["local"]["ports"]) == set(PORTS)
    assert "tier" not in elsewhere.out


async def test_status_is_not_well_without_a_router(tmp_path: Path) -> None:
    async with running(tmp_path, connected=False) as gateway:
        result = await gateway.cli("status")
        assert result.code == 5
        assert "no router is connected" in result.out


async def test_the_openapi_document_of_the_gateway_is_printed(gateway: Running) -> None:
    result = await gateway.cli("openapi", "-o", "json")
    assert result.code == 0, result.err
    assert "/api/management/v1/rest-apis" in json.loads(result.out)["paths"]


@pytest.mark.parametrize("command", ["get apis", "status", "keys list a", "openapi"])
async def test_where_nothing_answers_the_code_is_3(tmp_path: Path, command: str) -> None:
    result = await cli.run(
        *command.split(), "--url", "http://127.0.0.1:1", env=cli.environment(tmp_path)
    )
    assert (result.code, result.out) == (3, "")
    assert "no gateway answers at http://127.0.0.1:1" in result.err
    assert f"there is no client.json in the data folder {tmp_path}" in result.err
    assert "`signalbox up`" in result.err


async def test_another_server_at_the_address_is_not_taken_for_a_gateway(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} Odd\r\nContent-Type: text/html\r\nContent-Length: 4\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n<p/>".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for status in (200, 302, 404):  # noqa: B007 - the server's
            result = await cli.run("get", "apis", "--url", url, env=cli.environment(tmp_path))
            assert result.code == 3
            assert "not as a management API of Signalbox" in result.err
        status = 502
        result = await cli.run("get", "apis", "--url", url, env=cli.environment(tmp_path))
        assert result.code == 1
        assert "502" in result.err
