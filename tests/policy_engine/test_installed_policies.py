"""Policies of installed packages: found, kept when broken, refused alone."""

import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bus.resources.rest_api import PolicyRef
from policy_engine.catalogue import ENTRY_POINTS, load
from policy_engine.chain import compile_chain
from policy_engine.errors import Fault, InvalidParameters, PolicyNotCompiled, UnknownPolicy
from policy_engine.policy import Scope, Version
from tests.policy_engine.attached import SYSTEM


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> EntryPoint:
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return EntryPoint(name=name.replace("_", "-"), value=name, group=ENTRY_POINTS)


GOOD = """
    from policy_engine.policy import Policy, Version

    class Tag(Policy):
        '''Tags.'''
        name = "tag"
        version = Version(0, 3, 1)
        example = {"word": "x"}
        word: str

        def filters(self, scope):
            return ()
"""


def test_an_installed_policy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = load([installed(tmp_path, monkeypatch, "good_policies", GOOD)])
    parsed = catalogue.parse(PolicyRef(name="tag", version="v0", params={"word": "hello"}))
    assert parsed.model_dump() == {"word": "hello"}
    assert {one.name for one in catalogue.listing()} == {"tag"} | {
        one.name for one in load(()).listing()
    }


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("raise SystemExit(3)", "SystemExit"),
        ("x = 1", "holds no policy"),
        (GOOD.replace("version = Version(0, 3, 1)", "pass"), "lacks version"),
        (GOOD.replace("def filters", "def filtres"), "lacks filters"),
        (GOOD.replace("Version(0, 3, 1)", "'1.0'"), "not a Version"),
    ],
)
def test_a_broken_policy_is_kept_with_its_traceback_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    bad = installed(tmp_path, monkeypatch, "bad_policies", code)
    good = installed(tmp_path, monkeypatch, "good_policies", GOOD)
    catalogue = load([bad, good])

    (broken,) = catalogue.broken
    assert (broken.name, broken.source) == ("bad-policies", "bad_policies")
    assert reason in broken.reason
    assert "Traceback" in broken.traceback
    assert catalogue.resolve("tag").version == Version(0, 3, 1)
    with pytest.raises(UnknownPolicy, match="does not load"):
        catalogue.resolve("bad-policies")


def test_an_installed_policy_that_fails_while_it_is_used_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
    from pydantic import model_validator
    from policy_engine.policy import Policy, Version

    class Parses(Policy):
        name, version, example = "parses", Version(1, 0, 0), {}

        @model_validator(mode="before")
        @classmethod
        def boom(cls, values):
            raise RuntimeError("boom")

        def filters(self, scope):
            return ()

    class Compiles(Policy):
        name, version, example = "compiles", Version(1, 0, 0), {}

        def filters(self, scope):
            return 1 / 0
    """
    catalogue = load([installed(tmp_path, monkeypatch, "late_policies", code)])
    with pytest.raises(InvalidParameters) as raised:
        catalogue.parse(PolicyRef(name="parses"))
    assert raised.value.faults == (Fault("", "the policy itself failed: RuntimeError: boom"),)
    parsed = catalogue.parse(PolicyRef(name="compiles"))
    with pytest.raises(PolicyNotCompiled, match="ZeroDivisionError"):
        compile_chain([parsed], Scope("api", "a", "A", "v1", "/a", system=SYSTEM))
