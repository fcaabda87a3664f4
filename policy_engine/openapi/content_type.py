"""Media types with their parameters, as Content-Type has them.

Source: RFC 9110, section 8.3.1
"""

import re
from typing import Final

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf';\s*(?:({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*")\s*)?')
_KIND: Final = re.compile(rf"\s*({_WORD}/{_WORD})\s*")
_ESCAPED: Final = re.compile(r"\\(.)")


def split(text: str) -> tuple[str, dict[str, str]]:
    """The media type in lower case, and its parameters by their names in lower case.

    Raises ValueError for what is not written so, and for a parameter that stands twice.
    """
    kind = _KIND.match(text)
    if kind is None:
        raise ValueError("is not a media type")
    return kind[1].lower(), parameters(text[kind.end() :])


def parameters(text: str) -> dict[str, str]:
    """What stands behind a media type, or another value with parameters. Raises ValueError."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise ValueError("has parameters that cannot be read")
        at = match.end()
        if match[1] is None:
            continue
        name, value = match[1].lower(), match[2]
        if name in found:
            raise ValueError(f"has the parameter {name!r} twice")
        found[name] = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
    return found
