import re
import time

from hypothesis import given
from hypothesis import strategies as st

from policy_engine.guardrails.placeholders import Masking, Originals
from policy_engine.guardrails.restored_stream import RestoredBody
from policy_engine.parameters.regex import expression

WORDS = {
    "LOW": expression("[a-c]+"),
    "NUMBER": expression("[0-9]+"),
    "MIXED": expression("c[0-9]+"),
}


def test_equal_finds_have_equal_placeholders() -> None:
    masking = Masking(WORDS)
    assert masking.masked("ab 1 ab 2!") == "[LOW_0000] [NUMBER_0000] [LOW_0000] [NUMBER_0001]!"
    assert masking.masked("2 c") == "[NUMBER_0001] [LOW_0001]"
    assert masking.originals["[NUMBER_0001]"] == "2"


def test_of_overlapping_finds_the_first_counts() -> None:
    masking = Masking(WORDS)
    assert masking.masked("c1") == "[LOW_0000][NUMBER_0000]"
    other = Masking({"MIXED": WORDS["MIXED"], "LOW": WORDS["LOW"]})
    assert other.masked("c1") == "[MIXED_0000]"


def test_what_looks_like_a_placeholder_already_is_not_taken() -> None:
    masking = Masking(WORDS, taken="... [NUMBER_0000] ...")
    masked = masking.masked("[NUMBER_x] 7")
    assert masked == "[NUMBER_x] [NUMBER_0001]"


def test_what_is_redacted_is_gone() -> None:
    masking = Masking(WORDS, redact=True)
    assert masking.masked("ab 1") == "***** *****"
    assert masking.originals == {}


@given(st.text(alphabet="abc019 [_]LOWNUMBER", max_size=80))
def test_what_was_masked_comes_back(text: str) -> None:
    masking = Masking(WORDS, taken=text)
    masked = masking.masked(text)
    assert Originals(masking.originals).restored(masked.encode()) == text.encode()
    bare = re.sub(r"\[[A-Z_]+_[0-9a-f]{4}\]", "", masked)
    assert not re.search("[0-9]", bare)


@given(st.text(max_size=30), st.integers(1, 7))
def test_a_body_in_parts_comes_back_as_a_whole_one(original: str, size: int) -> None:
    originals = Originals({"[X_0000]": original, "[X_0001]": "b"})
    body = "é [X_0000][X_0001] [X_00 [X_0002] [[X_0001] [X".encode() + b"\xff"
    for json in (False, True):
        restored = RestoredBody(originals, json=json)
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        got = b"".join(restored.add(part) for part in parts) + restored.add(b"", last=True)
        assert got == (originals.restored_json(body) if json else originals.restored(body))


def test_originals_are_escaped_inside_json() -> None:
    originals = Originals({"[X_0000]": 'a "b"\\\n'})
    assert originals.restored_json(b'{"x": "[X_0000]"}') == b'{"x": "a \\"b\\"\\\\\\n"}'


def test_many_finds_cost_no_more_each() -> None:
    def seconds(finds: int) -> float:
        text = " ".join(map(str, range(finds)))
        began = time.process_time()
        Masking({"NUMBER": WORDS["NUMBER"]}, taken=text).masked(text)
        return time.process_time() - began

    assert seconds(20_000) < 30 * max(seconds(2_000), 0.004)


def test_positions_are_those_of_characters_of_any_length() -> None:
    assert Masking(WORDS).masked("é€😀 12 ü 3 ß") == "é€😀 [NUMBER_0000] ü [NUMBER_0001] ß"
