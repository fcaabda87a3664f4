"""A new policy as a file to start from, with a test that passes."""

import keyword
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from ctl.errors import Misused, Refused

Kind = Literal["python", "native"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX = 64

_PYTHON = '''"""{title}: a policy whose hooks run in the gateway's Python engine."""

from typing import ClassVar

from pydantic import Field

from policy_engine.hooks import Answer, Exchange, PythonPolicy, json_answer
from policy_engine.policy import Document, Version


class {cls}(PythonPolicy):
    """Refuses requests without a certain header, and marks the answers to the others.

    The first paragraph is the summary in `signalbox policies`; the rest is shown with the policy.
    """

    name = "{name}"
    version = Version(1, 0, 0)
    example: ClassVar[Document] = {{"header": "x-ticket"}}
    # failure_mode = "open"  # requests pass when a hook fails or takes longer than timeout_s
    # timeout_s = 0.5

    header: str = Field(min_length=1, max_length=64)
    """Name of the request header that must be there."""

    mark: str = "checked"
    """What the header `x-{name}` says on answers."""

    def on_request_headers(self, exchange: Exchange) -> Answer | None:
        """The request's headers are there; an answer goes to the caller at once."""
        if self.header not in exchange.request.headers:
            told = {{"error": "Forbidden", "message": f"Header {{self.header}} is required"}}
            return json_answer(403, told, reason="no header")
        exchange.published["{name}"] = "passed"  # for later policies and the access log
        return None

    def on_response_headers(self, exchange: Exchange) -> None:
        """The answer's headers are there."""
        if exchange.response is not None:
            exchange.response.headers.set("x-{name}", self.mark)

    # Also: on_request_body, on_response_body, and on_request_chunk, on_response_chunk for streams.
    # Hooks that wait are coroutines: `async def`, with `await exchange.outside.fetch(...)`.
'''

_PYTHON_TEST = '''"""Tests of {name}: `pytest {test}`."""

from policy_engine.testing import Answer, Asked, load_policy, simulate

{cls} = load_policy(__file__, "{file}")


def test_the_example_is_valid() -> None:
    {cls}.model_validate({cls}.example)


def test_a_request_with_the_header_passes_and_its_answer_is_marked() -> None:
    outcome = simulate(
        {cls}(header="x-ticket", mark="seen"),
        request=Asked("GET", "/a", headers={{"X-Ticket": "1"}}),
        answer=Answer(200, b"hello"),
    )
    assert (outcome.status, outcome.body) == (200, b"hello")
    assert outcome.header("x-{name}") == "seen"
    assert outcome.published == {{"{name}": "passed"}}


def test_a_request_without_it_is_refused_and_the_upstream_is_not_asked() -> None:
    outcome = simulate({cls}(header="x-ticket"), request=Asked("GET", "/a"))
    assert outcome.status == 403
    assert outcome.answered_by == "{name}"
    assert outcome.upstream is None
'''

_NATIVE = '''"""{title}: a policy that compiles to filters of Envoy."""

from typing import ClassVar

from pydantic import Field

from policy_engine.policy import Document, HttpFilter, Policy, Purpose, Scope, Version, typed

_HEADER_MUTATION = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"


class {cls}(Policy):
    """Sets a header on the request to the upstream.

    The first paragraph is the summary in `signalbox policies`; the rest is shown with the policy.
    """

    name = "{name}"
    version = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"  # "guards" for policies that may refuse
    example: ClassVar[Document] = {{"header": "x-{name}", "value": "yes"}}

    header: str = Field(pattern=r"^[A-Za-z0-9-]+$", max_length=64)
    """Name of the header."""

    value: str
    """What it says."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One filter: JSON-shaped configuration of Envoy, as in its documentation."""
        value = self.value.replace("%", "%%")  # Envoy formats values
        mutation = {{
            "append": {{
                "header": {{"key": self.header, "value": value}},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }}
        }}
        config = typed(_HEADER_MUTATION, {{"mutations": {{"request_mutations": [mutation]}}}})
        return (HttpFilter(scope.unique(self.name), config),)
'''

_NATIVE_TEST = '''"""Tests of {name} with a real Envoy: `pytest {test}`."""

import asyncio

from compose.policy_kit import with_envoy
from policy_engine.testing import load_policy

{cls} = load_policy(__file__, "{file}")


def test_the_example_is_valid() -> None:
    {cls}.model_validate({cls}.example)


def test_the_upstream_gets_the_header() -> None:
    async def seen() -> str | None:
        policy = {{"name": "{name}", "params": {{"header": "x-word", "value": "100 %"}}}}
        async with with_envoy([policy], classes=[{cls}]) as gateway:
            assert (await gateway.client.get("/a")).status_code == 200
            return gateway.seen[0].header("x-word")

    assert asyncio.run(seen()) == "100 %"
'''

_TEMPLATES: dict[Kind, tuple[str, str]] = {
    "python": (_PYTHON, _PYTHON_TEST),
    "native": (_NATIVE, _NATIVE_TEST),
}


def create(name: str, kind: Kind, folder: Path, taken: Collection[str]) -> tuple[Path, Path]:
    """Write the policy and its test; where they are.

    `taken`: names of policies that there are. Raises Misused for a bad name, Refused when something
    is there already or cannot be written.
    """
    if not _NAME.fullmatch(name) or len(name) > _MAX:
        raise Misused(
            f"{name!r} is no name of a policy: lower-case letters and digits, words joined by '-',"
            f" at most {_MAX} characters"
        )
    entry = name.replace("-", "_")
    if keyword.iskeyword(entry) or entry.startswith("test_") or entry in ("test", "conftest"):
        raise Misused(f"{name!r} is no name of a policy: Python needs it for something else")
    if name in taken:
        raise Refused(f"there is a policy {name!r} already; a file would take its place")
    file, test = folder / f"{entry}.py", folder / f"test_{entry}.py"
    for path in (file, test, folder / entry):
        if path.exists():
            raise Refused(f"{path} is there already; nothing was written")
    words = {
        "name": name,
        "cls": "".join(word.capitalize() for word in name.split("-")),
        "title": " ".join(name.split("-")).capitalize(),
        "file": file.name,
        "test": test.name,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip((file, test), _TEMPLATES[kind], strict=True):
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text.format(**words))
    except OSError as error:
        raise Refused(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return file, test
