from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.openapi.multipart import Part, parts
from policy_engine.openapi.parameters import Malformed

HEAD = b'Content-Disposition: form-data; name="a"\r\n'


def body(*pieces: bytes) -> bytes:
    return b"".join(b"--x\r\n" + one + b"\r\n" for one in pieces) + b"--x--\r\n"


@given(
    st.lists(
        st.tuples(
            st.text("abc [].", min_size=1, max_size=9),
            st.binary(max_size=200),
            st.sampled_from([None, "photo.png", 'say "hi".txt']),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_parts_are_read_as_clients_write_them(fields: list[tuple[str, bytes, Any]]) -> None:
    files = [(name, (filename, content, "image/png")) for name, content, filename in fields]
    request = httpx.Request("POST", "http://a.example", files=files)
    boundary = request.headers["content-type"].partition("boundary=")[2]
    assert list(parts(request.read(), boundary)) == [
        Part(name, "image/png", filename is not None, content) for name, content, filename in fields
    ]


def test_what_may_stand_around_parts() -> None:
    one = Part("a", "", False, b"v")
    assert list(parts(b"\r\n" + body(HEAD + b"\r\nv"), "x")) == [one]
    assert list(parts(body(HEAD + b"\r\nv")[:-2], "x")) == [one]
    assert list(parts(body(HEAD + b"\r\n"), "x")) == [Part("a", "", False, b"")]
    quoted = b'content-disposition: FORM-DATA; filename="f"; name="a\\"b"\r\nX-More: 1\r\n\r\n'
    assert list(parts(body(quoted), "x")) == [Part('a"b', "", True, b"")]


@pytest.mark.parametrize(
    ("given", "boundary", "problem"),
    [
        (body(HEAD + b"\r\nv"), "", "has no boundary"),
        (body(HEAD + b"\r\nv"), "y" * 71, "has no boundary"),
        (body(HEAD + b"\r\nv"), "y", "does not begin with its boundary"),
        (b"preamble\r\n" + body(HEAD + b"\r\nv"), "x", "does not begin"),
        (body(HEAD + b"\r\nv") + b"epilogue", "x", "does not end"),
        (body(HEAD + b"\r\nv")[:-6], "x", "does not end"),
        (b"", "x", "does not begin"),
        (b"--x \r\n" + HEAD + b"\r\nv\r\n--x--", "x", "followed by something else"),
        (body(b"v"), "x", "part 1 has no headers"),
        (body(b"X: " + b"y" * 9000 + b"\r\n\r\nv"), "x", "very long ones"),
        (body(b"\r\nv"), "x", "part 1 has a header that cannot be read"),
        (body(HEAD + b"nonsense\r\n\r\nv"), "x", "a header that cannot be read"),
        (body(HEAD + b"Content-Type : text/plain\r\n\r\nv"), "x", "cannot be read"),
        (body(HEAD + b" folded\r\n\r\nv"), "x", "cannot be read"),
        (body(HEAD + HEAD + b"\r\nv"), "x", "'Content-Disposition' twice"),
        (body(b"Content-Type: text/plain\r\n\r\nv"), "x", "is not form-data"),
        (body(b"Content-Disposition: attachment; name=a\r\n\r\nv"), "x", "is not form-data"),
        (body(b"Content-Disposition: form-data\r\n\r\nv"), "x", "names no field"),
        (body(b"Content-Disposition: form-data; name=a; name=b\r\n\r\n"), "x", "'name' twice"),
        (
            body(b"Content-Disposition: form-data; name=a; filename*=utf-8''b\r\n\r\n"),
            "x",
            "names no field",
        ),
        (body(b'Content-Disposition: form-data; name="a\r\n\r\n'), "x", "cannot be read"),
        (body(HEAD + b"Content-Transfer-Encoding: base64\r\n\r\ndg=="), "x", "'base64'"),
        (body(*[HEAD + b"\r\n"] * 1001), "x", "more than 1000 parts"),
        (body(HEAD + b"\r\nv\n--x\r\n" + HEAD + b"\r\nw"), "x", "a line end that is not CRLF"),
        (body(HEAD + b"\r\nv\r--x--"), "x", "a line end that is not CRLF"),
        (body(HEAD + b"\r\nv").replace(b"\r\n--x--", b"\n--x--"), "x", "does not end"),
        (body(b'Content-Disposition: form-data; name="\xff"\r\n\r\n'), "x", "not UTF-8"),
    ],
)
def test_what_two_readers_may_understand_differently_is_not_read(
    given: bytes, boundary: str, problem: str
) -> None:
    with pytest.raises(Malformed, match=problem):
        list(parts(given, boundary))
