"""CloudEvents binary mode on NATS."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context, trace

from bus.envelope import decode, encode, resume_trace
from bus.errors import MalformedEvent, UnknownEvent
from bus.events import ApiPublished, ApiRetired
from bus.resources.rest_api import RestApi
from tests.bus.adapters import message, retired

API = RestApi.model_validate(
    {
        "apiVersion": "gateway.api-platform.wso2.com/v1",
        "kind": "RestApi",
        "metadata": {"name": "weather-v1"},
        "spec": {
            "displayName": "Weather",
            "version": "v1.0",
            "context": "/weather/v1",
            "upstream": {"main": {"url": "http://backend:8080"}},
            "operations": [{"method": "GET", "path": "/{city}"}],
        },
    }
)


def test_attributes_are_headers_and_the_event_is_the_body():
    at = datetime(2026, 3, 4, 5, 6, 7, 89_999, UTC)
    said = encode(retired("weather", 7, org="acme"), "id-1", source="/signalbox/controller", at=at)

    assert said.subject == "sbx.acme.default.state.rest-api.weather"
    assert said.headers == {
        "ce-specversion": "1.0",
        "ce-id": "id-1",
        "ce-source": "/signalbox/controller",
        "ce-type": "sbx.rest-api.retired",
        "ce-time": "2026-03-04T05:06:07.089Z",
        "ce-subject": "rest-api/weather",
        "ce-datacontenttype": "application/json",
        "Nats-Msg-Id": "id-1",
    }
    assert said.body == b'{"org":"acme","gateway":"default","revision":7,"api_id":"weather"}'


def test_time_of_another_zone_keeps_its_offset():
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=2)))
    assert encode(retired("a"), "1", at=at).headers["ce-time"] == "2026-03-04T05:06:07.000+02:00"


@given(
    api_id=st.text(min_size=1),
    event_id=st.text(min_size=1),
    org=st.text(min_size=1),
    gateway=st.text(min_size=1),
    revision=st.integers(),
)
def test_what_was_encoded_is_decoded_and_headers_are_plain(
    api_id, event_id, org, gateway, revision
):
    event = ApiRetired(org=org, gateway=gateway, api_id=api_id, revision=revision)
    said = encode(event, event_id)
    assert decode(*said) == (event, event_id)
    for value in said.headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value


def test_a_whole_resource_survives_and_is_spelled_as_on_the_wire():
    event = ApiPublished(revision=1, api=API)
    said = encode(event, "1")
    assert b'"displayName":"Weather"' in said.body
    assert decode(*said).event == event


def test_header_names_are_read_in_any_case():
    subject, headers, body = message(retired("a"), "1")
    assert decode(subject, {k.upper(): v for k, v in headers.items()}, body).event == retired("a")


def test_fields_a_newer_sender_added_are_ignored_at_every_depth():
    said = encode(ApiPublished(revision=1, api=API), "1")
    newer = said.body.replace(b'"displayName"', b'"fromTheFuture":{"a":1},"displayName"')
    assert newer != said.body
    assert decode(said.subject, said.headers, newer).event == ApiPublished(revision=1, api=API)


@pytest.mark.parametrize("kind", ["sbx.no.such-kind", "com.example.thing", "sbx."])
def test_a_kind_that_nobody_registered_is_unknown(kind):
    with pytest.raises(UnknownEvent) as caught:
        decode(*message(retired("a"), "1", ce_type=kind))
    assert caught.value.kind == kind.removeprefix("sbx.")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body"),
        (b"\xff\xfe", "body"),
        (b"[]", "body"),
        (b"{}", r"revision: Field required \(and 1 more\)"),
        (b'{"revision":"x","api_id":"a"}', "revision"),
    ],
)
def test_a_body_that_is_not_the_event_says_which_field(body, reason):
    with pytest.raises(MalformedEvent, match=reason):
        decode(*message(retired("a"), "1")[:2], body)


@pytest.mark.parametrize("headers", [None, {}])
def test_a_message_without_an_envelope_is_malformed(headers):
    with pytest.raises(MalformedEvent, match="ce-specversion"):
        decode("sbx.default.default.state.rest-api.a", headers, b"{}")


def test_a_body_addressed_elsewhere_is_malformed():
    _, headers, body = message(retired("a", org="victim"), "1")
    with pytest.raises(MalformedEvent, match=r"belongs on sbx\.victim.*came on sbx\.attacker"):
        decode("sbx.attacker.default.state.rest-api.a", headers, body)


def test_a_json_content_type_with_parameters_is_accepted():
    changed = message(retired("a"), "1", ce_datacontenttype="Application/JSON; charset=utf-8")
    assert decode(*changed).event == retired("a")


def test_without_a_trace_there_is_no_header_and_nothing_changes():
    assert "traceparent" not in encode(retired("a"), "1").headers
    before = context.get_current()
    resume_trace({})
    resume_trace(None)
    assert context.get_current() is before


def test_the_current_trace_is_carried_and_taken_up():
    span = trace.NonRecordingSpan(
        trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    mark = context.attach(trace.set_span_in_context(span))
    try:
        headers = encode(retired("a"), "1").headers
    finally:
        context.detach(mark)
    assert headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"

    mark = context.attach(context.Context())
    try:
        resume_trace(headers)
        assert trace.get_current_span().get_span_context().trace_id == 0xABC
    finally:
        context.detach(mark)
