"""The committed AsyncAPI document is the one that the code describes, and keeps its promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import bus
from bus.asyncapi import LANGUAGE, address, asyncapi_document
from bus.compatibility import breaking_changes, may_break
from bus.events import Event, event_classes
from bus.subjects import matches
from tests.bus.adapters import connected, retired

COMMITTED = Path(bus.__file__).parent / "asyncapi.yaml"


def test_the_committed_document_is_current_and_breaks_no_promise(golden):
    """`pytest --accept` writes it, unless it breaks what was promised under the same version."""
    described = asyncapi_document()
    if COMMITTED.exists() and not may_break(COMMITTED.read_text(), described):
        assert breaking_changes(COMMITTED.read_text(), described) == (), "raise LANGUAGE_VERSION"
    golden(COMMITTED, described)


def test_every_module_that_defines_events_is_described():
    folder = Path(bus.__file__).parent
    defining = {
        ".".join(("bus", *path.relative_to(folder).with_suffix("").parts))
        for path in folder.rglob("*.py")
        if re.search(r"^class \w+\(Event, kind=", path.read_text(), re.MULTILINE)
    }
    assert defining == set(LANGUAGE)


def test_every_event_has_a_channel_under_its_stream():
    document = yaml.safe_load(asyncapi_document())
    described = [event for event in event_classes() if event.__module__ in LANGUAGE]
    assert sorted(document["channels"]) == [event.kind for event in described]
    for event in described:
        channel = document["channels"][event.kind]
        plain = channel["address"].replace("{", "").replace("}", "")
        assert matches(f"sbx.*.*.{event.family}.>", plain)
        assert channel["x-jetstream"]["stream"] == f"sbx-{event.family}"
        assert set(channel["parameters"]) == set(re.findall(r"{(\w+)}", channel["address"]))


@pytest.mark.parametrize("event", [retired("weather"), connected("router-1")])
def test_the_address_is_where_events_are_really_published(event: Event):
    wanted = re.sub(r"{\w+}", "*", address(type(event)))
    assert matches(wanted, event.subject)


def test_the_document_is_the_same_in_another_process():
    script = "import bus.asyncapi; print(bus.asyncapi.asyncapi_document(), end='')"
    for seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        )
        assert answer.stdout == asyncapi_document()


def test_serving_does_not_load_the_documentation_generator():
    script = (
        "import sys, bus.jetstream, bus.memory, bus.asyncapi;"
        "print([name for name in sys.modules if name.startswith('faststream')])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert answer.stdout.strip() == "[]"
