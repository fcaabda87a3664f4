"""Conditions on the claims of a verified token, as principals of Envoy's `rbac` filter.

`jwt_authn` leaves the payload and the header of a token in the request's metadata.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policy_engine.parameters.headers import APPLICATION_HEADER, caller
from policy_engine.policy import Document, typed

JWT_FILTER = "envoy.filters.http.jwt_authn"
NAMELESS: Document = {
    "append": {
        "header": {"key": APPLICATION_HEADER, "value": caller("")},
        "append_action": "ADD_IF_ABSENT",
    }
}
"""The mutation by which a caller is known whose token does not say who it is."""

PAYLOAD, HEADER = "payload", "header"  # keys in the filter's metadata
RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"


def claim_is(claim: str, value: str, *, separator: str | None = None) -> Document:
    """Claim `claim` is `value`, or a list that holds it, or text that holds it between separators.

    Dots lead into objects; a claim whose own name has dots is found too. Numbers and booleans are
    compared with what JSON calls them.
    """
    wanted: list[Document] = [{"string_match": {"exact": value}}]
    if separator is not None:
        between = re.escape(separator)
        pattern = rf"(?s)(.*{between})?{re.escape(value)}({between}.*)?"
        wanted = [{"string_match": {"safe_regex": {"regex": pattern}}}]
    wanted.append({"list_match": {"one_of": {"string_match": {"exact": value}}}})
    if value in ("true", "false"):
        wanted.append({"bool_match": value == "true"})
    elif re.fullmatch(r"-?\d{1,15}(\.\d{1,6})?", value):
        wanted.append({"double_match": {"exact": float(value)}})
    paths = [[claim], claim.split(".")] if "." in claim.strip(".") else [[claim]]
    return any_of(
        _metadata([PAYLOAD, *path], {"or_match": {"value_matchers": wanted}}) for path in paths
    )


def signed_with(algorithms: Sequence[str]) -> Document:
    """The token's signature is by one of `algorithms`."""
    return any_of(
        _metadata([HEADER, "alg"], {"string_match": {"exact": one}}) for one in algorithms
    )


def any_of(principals: Iterable[Document]) -> Document:
    """One of them holds."""
    ids = list(principals)
    return ids[0] if len(ids) == 1 else {"or_ids": {"ids": ids}}


def all_of(principals: Iterable[Document]) -> Document:
    """All of them hold."""
    ids = list(principals)
    return ids[0] if len(ids) == 1 else {"and_ids": {"ids": ids}}


def refused_unless(principal: Document) -> Document:
    """A rule of Envoy's for all but `principal`."""
    return {"permissions": [{"any": True}], "principals": [{"not_id": principal}]}


def is_there(path: Sequence[str]) -> Document:
    """The filter's metadata has something at `path`."""
    return _metadata(path, {"present_match": True})


def moved(principal: Document, places: Mapping[str, str]) -> Document:
    """`principal` where the payload and the header of tokens are kept under other keys."""

    def part(value: Any) -> Any:  # noqa: ANN401 - JSON
        match value:
            case {"filter": filter_, "path": [{"key": first}, *rest], **more}:
                path = [{"key": places.get(first, first)}, *rest]
                return {"filter": filter_, "path": path, **more}
            case dict():
                return {key: part(one) for key, one in value.items()}
            case list():
                return [part(one) for one in value]
        return value

    return dict(part(principal))


def refuse_unless(name: str, principal: Document) -> Document:
    """An `rbac` filter that refuses all others, with `denied(name)` as the reason."""
    policies = {name: refused_unless(principal)}
    return typed(RBAC, {"rules": {"action": "DENY", "policies": policies}})


def denied(name: str) -> str:
    """The response code details of what an `rbac` filter refuses by its rule `name`."""
    return f"rbac_access_denied_matched_policy[{name}]"


def _metadata(path: Sequence[str], value: Document) -> Document:
    segments = [{"key": one} for one in path]
    return {"metadata": {"filter": JWT_FILTER, "path": segments, "value": value}}
