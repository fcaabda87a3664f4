"""Edits written as bytes are what Envoy's own messages say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.engine.header_edits import edited, header_mutation
from policy_engine.engine.messages import ProcessingResponse
from xds.wire.messages import message_class

HeaderMutation = message_class("envoy.service.ext_proc.v3.HeaderMutation")
NAMES = st.text(alphabet="abcdefghijklmnop-:", min_size=1, max_size=150)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.integers(100, 20_000).map(lambda size: "v" * size),
)
EDITS = st.dictionaries(NAMES, st.lists(TEXTS, max_size=3).map(tuple), max_size=5)


def written(edits: dict[str, tuple[str, ...]]) -> bytes:
    """The same through the message classes."""
    mutation = HeaderMutation()
    for name, values in edits.items():
        if not values:
            mutation.remove_headers.append(name)
        for position, value in enumerate(values):
            option = mutation.set_headers.add()
            option.header.key = name
            option.header.raw_value = value.encode("utf-8", "surrogateescape")
            if position:
                option.append.value = True
            else:
                option.append_action = 2  # OVERWRITE_IF_EXISTS_OR_ADD
    return bytes(mutation.SerializeToString(deterministic=True))


@given(edits=EDITS)
def test_bytes_say_what_messages_say(edits: dict[str, tuple[str, ...]]) -> None:
    assert HeaderMutation.FromString(header_mutation(edits)) == HeaderMutation.FromString(
        written(edits)
    )


@pytest.mark.parametrize(
    "kind", ["request_headers", "request_body", "response_headers", "response_body"]
)
@given(edits=EDITS)
def test_an_answer_is_of_the_kind_that_was_asked(
    kind: str, edits: dict[str, tuple[str, ...]]
) -> None:
    answer = ProcessingResponse.FromString(edited(kind, edits))
    assert answer.WhichOneof("response") == kind
    mutation = getattr(answer, kind).response.header_mutation
    assert mutation == HeaderMutation.FromString(written(edits))


def test_a_name_that_is_no_text_is_an_error_here_and_not_in_the_router() -> None:
    with pytest.raises(UnicodeEncodeError):
        header_mutation({"x-\udcff": ("a",)})
