"""What every command owes its users: an example that works, a page of the reference, completion."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ctl import reference
from ctl.errors import ExitCode
from ctl.main import application
from tests.ctl import cli

ROOT = typer.main.get_command(application())
DOCS = Path(__file__).parents[2] / "docs"


def commands(command: Any = ROOT, path: str = "signalbox") -> Iterator[tuple[str, Any]]:
    found = getattr(command, "commands", None)
    if found is None:
        yield path, command
        return
    for name, below in found.items():
        yield from commands(below, f"{path} {name}")


def examples(command: Any) -> list[str]:
    return re.findall(r"\bsignalbox [^)\n]+", command.help.partition("Examples:")[2])


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_says_what_it_does_and_gives_an_example(path: str) -> None:
    help_text = COMMANDS[path].help
    assert help_text, f"{path} has no help"
    assert help_text.partition("\n")[0].strip().endswith((".", "!"))
    found = examples(COMMANDS[path])
    assert found, f"{path} has no example"
    assert any(example.startswith(path) for example in found)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_example_is_a_call_that_the_command_understands(path: str) -> None:
    for example in examples(COMMANDS[path]):
        for part in re.split(r"[|>]", example):
            words = shlex.split(part)
            if words[:1] != ["signalbox"]:
                continue
            command, arguments, context = ROOT, words[1:], None
            while hasattr(command, "commands"):
                context = command.make_context(command.name, list(arguments), parent=context)
                name, *arguments = context._protected_args + context.args
                command = command.commands[name]
            command.make_context(command.name, list(arguments), parent=context)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_a_help_text(path: str) -> None:
    for parameter in COMMANDS[path].params:
        assert getattr(parameter, "help", None), f"{path}: {parameter.name} is undocumented"


def test_the_help_names_every_exit_code() -> None:
    for code in ExitCode:
        assert re.search(rf"^  {code:d} +{re.escape(code.meaning)}$", ROOT.help or "", re.MULTILINE)


def test_the_reference_is_up_to_date(golden: Callable[[Path, object], None]) -> None:
    golden(DOCS / "cli.md", reference.page())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_can_be_shown(tmp_path: Path, shell: str) -> None:
    env = cli.environment(tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    result = await cli.run("--show-completion", shell, env=env)
    assert result.code == 0, result.err
    assert "_SIGNALBOX_COMPLETE" in result.out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("signalbox po", {"policies"}),
        ("signalbox keys re", {"regenerate", "revoke"}),
        ("signalbox get ap", {"apis", "applications"}),
        ("signalbox get apis --outp", {"--output"}),
        ("signalbox get apis -o y", {"yaml"}),
    ],
)
def test_bash_completes(words: str, offered: set[str]) -> None:
    env = {
        **os.environ,
        "_SIGNALBOX_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([cli.SIGNALBOX], env=env, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/signalbox.sh"),
        ("zsh", ".zfunc/_signalbox"),
        ("fish", ".config/fish/completions/signalbox.fish"),
    ],
)
async def test_completion_can_be_installed(tmp_path: Path, shell: str, file: str) -> None:
    env = cli.environment(tmp_path, HOME=str(tmp_path))
    env["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    result = await cli.run("--install-completion", shell, env=env)
    assert result.code == 0, result.err
    assert "_SIGNALBOX_COMPLETE" in (tmp_path / file).read_text()


def test_starting_imports_nothing_heavy() -> None:
    heavy = "{'httpx', 'nats', 'pydantic', 'yaml', 'rich', 'fastapi', 'sqlalchemy', 'structlog'}"
    code = (
        f"import sys, ctl.main; ctl.main.application(); print(sorted({heavy} & set(sys.modules)))"
    )
    python = cli.SIGNALBOX.with_name("python")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", ["policies", "version", "asyncapi"])
async def test_commands_that_need_no_gateway_need_none(tmp_path: Path, command: str) -> None:
    result = await cli.run(command, env=cli.environment(tmp_path))
    assert (result.code, result.err) == (0, "")
    assert result.out


async def test_a_policy_is_shown_in_full(tmp_path: Path) -> None:
    env = cli.environment(tmp_path)
    result = await cli.run("policies", "basic-ratelimit", env=env)
    assert "limits[].requests  integer" in result.out
    assert "runs in Envoy" in result.out
    missing = await cli.run("policies", "nothing", env=env)
    assert missing.code == 4


def test_a_reader_that_has_enough_is_no_error() -> None:
    shell = f"{cli.SIGNALBOX} asyncapi | head -c 10"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
