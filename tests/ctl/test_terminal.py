"""What people see on a terminal, and programs do not."""

import asyncio
import os
import pty
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.ctl import cli
from tests.ctl.resources import rest_api
from tests.ctl.running import Running, running

DEADLINE_S = 60


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "data") as one:
        yield one


async def on_terminal(
    gateway: Running, *arguments: str, answer: str = "", **env: str
) -> tuple[int, str]:
    """Exit code and screen of a command on a terminal that types `answer`."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            cli.SIGNALBOX,
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=cli.environment(gateway.folder, TERM="xterm-256color", **env),
        )
    finally:
        os.close(theirs)
    os.write(ours, answer.encode())
    screen = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            screen.extend(part)

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.to_thread(read)
        code = await process.wait()
    os.close(ours)
    return code, screen.decode().replace("\r\n", "\n")


async def test_a_table_is_coloured_unless_that_is_not_wanted(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("a.yaml", rest_api("a")))
    code, screen = await on_terminal(gateway, "get", "apis")
    assert code == 0
    assert "\x1b[32mdeployed" in screen
    code, screen = await on_terminal(gateway, "get", "apis", NO_COLOR="1")
    assert "\x1b" not in screen
    assert "deployed" in screen


async def test_deleting_is_asked_for(gateway: Running) -> None:
    both = gateway.write("both.yaml", rest_api("a"), rest_api("b"))
    await gateway.cli("apply", "-f", both, "--applied-set", "s")
    command = ("apply", "-f", gateway.write("a.yaml", rest_api("a")), "--applied-set", "s")
    code, screen = await on_terminal(gateway, *command, "--prune", answer="n\n")
    assert code == 1
    assert "to be deleted: api/b" in screen
    assert "Delete 1 resource? [y/N]" in screen
    assert "nothing was sent" in screen
    code, screen = await on_terminal(gateway, *command, "--prune", answer="y\n")
    assert code == 0
    assert "api/b deleted, gone from 1 of 1 routers" in screen


async def test_a_difference_is_coloured(gateway: Running) -> None:
    file = gateway.write("a.yaml", rest_api("a"))
    code, screen = await on_terminal(gateway, "apply", "-f", file, "--dry-run")
    assert code == 6
    assert re.search(r"\x1b\[32m\+kind: RestApi", screen)


async def test_many_documents_have_a_progress_bar(gateway: Running) -> None:
    file = gateway.write("m.yaml", *(rest_api(f"a{number}") for number in range(30)))
    code, screen = await on_terminal(gateway, "apply", "-f", file)
    assert code == 0
    assert "applying" in screen
    assert "/30" in screen
    line = r"(?:^|\x1b\[2K)api/a\d+ created, live on 1 of 1 routers, revision 1, \d+ ms *$"
    assert len(re.findall(line, screen, re.MULTILINE)) == 30
    assert "30 created" in screen


async def test_an_error_is_red_on_a_terminal(gateway: Running) -> None:
    code, screen = await on_terminal(gateway, "get", "api", "nothing")
    assert code == 4
    assert "\x1b[31msignalbox:" in screen
