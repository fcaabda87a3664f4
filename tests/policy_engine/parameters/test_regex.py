import time

import pytest

from policy_engine.parameters.regex import expression


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "^(a?){50}a{50}$", "(.*a){20}b"])
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    started = time.perf_counter()
    expression(pattern).search("a" * 100_000 + "!")
    assert time.perf_counter() - started < 5  # milliseconds; `re` would need longer than there is


@pytest.mark.parametrize("pattern", ["(", "(?=a)", r"(a)\1", "a**", "(?:x{1000}){1000}"])
def test_what_is_no_pattern_of_re2_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a regular expression of RE2"):
        expression(pattern)
