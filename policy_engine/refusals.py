"""The words of the gateway's own errors: an error that no upstream gave is JSON.

Envoy passes what it answers by itself, and nothing else, through the listener's
`local_reply_config`. Refusals of policies are told apart by `%RESPONSE_CODE_DETAILS%`; what else
the router refuses is dressed by its status. What a user or a policy has worded stays as it is.
"""

import json
from collections.abc import Iterable

from policy_engine.policy import Document, Refusal, literal, typed

WORDED_PREFIX = "policy:"
"""Response code details of answers that a policy gives in its own words begin so."""

UNAVAILABLE = (
    "Service Unavailable",
    "A policy of the API cannot be evaluated. Please try again later.",
)
"""Error and message of a request whose Python policy could not be run, and that must not pass."""

UNKNOWN_UPSTREAM = (
    "Bad Gateway",
    "The request was meant for an upstream that the API does not have",
)
"""Error and message of a request for which a Python policy has chosen an upstream in vain."""

TOO_LONG_ANSWER = (
    "Bad Gateway",
    "The answer of the upstream is too long for a policy of the API",
)
"""Error and message of an answer that no Python policy could see as a whole."""

_CEL = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
_JSON = "application/json"
_WORDED = ("direct_response", "lua_response")
_FIRST_ERROR = 400

_ENGINE_AWAY = "ext_proc_error"
"""Response code details begin so when the engine, or the time for its answer, is over."""

_ANSWER_NOT_KEPT = "response_payload_too_large"
"""Response code details of an answer that Envoy was to keep until its end, and could not."""

_BY_STATUS: dict[int, tuple[str, str]] = {
    400: ("Bad Request", "The request is malformed"),
    403: ("Forbidden", "The request is not allowed"),
    404: ("Not Found", "No API operation matches this request"),
    408: ("Request Timeout", "The request did not arrive in time"),
    413: ("Content Too Large", "The request body is too large"),
    415: ("Unsupported Media Type", "The request body has a type that is not supported"),
    426: ("Upgrade Required", "The request needs a newer HTTP version"),
    429: ("Too Many Requests", "Too many requests. Please try again later."),
    431: ("Request Header Fields Too Large", "The request headers are too large"),
    500: ("Internal Server Error", "The gateway could not handle the request"),
    502: ("Bad Gateway", "The upstream gave an invalid answer"),
    503: ("Service Unavailable", "The upstream cannot be reached. Please try again later."),
    504: ("Gateway Timeout", "The upstream did not answer in time"),
}


def local_reply_config(refusals: Iterable[Refusal]) -> Document:
    """The listener's `LocalReplyConfig`: `refusals` in their order, then the router's own."""
    return {
        "mappers": [
            *(_mapper(_is(one), one.status, one.body, one.headers) for one in refusals),
            _mapper(
                f"response.code_details.startsWith({json.dumps(_ENGINE_AWAY)})",
                503,
                _body(*UNAVAILABLE),
                (),
            ),
            _mapper(
                f"response.code_details == {json.dumps(_ANSWER_NOT_KEPT)}",
                502,
                _body(*TOO_LONG_ANSWER),
                (),
            ),
            *(
                _mapper(_unworded(f"response.code == {status}"), status, _body(*words), ())
                for status, words in _BY_STATUS.items()
            ),
            {
                "filter": _cel(_unworded(f"response.code >= {_FIRST_ERROR}")),
                "body_format_override": {
                    "json_format": {"error": "Error", "message": "%LOCAL_REPLY_BODY%"},
                    "content_type": _JSON,
                },
            },
        ]
    }


def _body(error: str, message: str) -> Document:
    return {"error": error, "message": message}


def _is(refusal: Refusal) -> str:
    details = json.dumps(refusal.details)  # a CEL string has the syntax of a JSON string
    if refusal.prefix:
        return f"response.code_details.startsWith({details})"
    return f"response.code_details == {details}"


def _unworded(condition: str) -> str:
    return (
        f"{condition} && !(response.code_details in {json.dumps(_WORDED)})"
        f" && !response.code_details.startsWith({json.dumps(WORDED_PREFIX)})"
    )


def _mapper(
    condition: str, status: int, body: Document | str, headers: tuple[tuple[str, str], ...]
) -> Document:
    if isinstance(body, str):
        text, content_type = body, "text/plain"
    else:
        text, content_type = json.dumps(body, ensure_ascii=False, separators=(",", ":")), _JSON
    mapper: Document = {
        "filter": _cel(condition),
        "status_code": status,
        "body_format_override": {
            "text_format_source": {"inline_string": literal(text)},
            "content_type": content_type,
        },
    }
    if headers:
        mapper["headers_to_add"] = [
            {
                "header": {"key": name, "value": literal(value)},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for name, value in headers
        ]
    return mapper


def _cel(expression: str) -> Document:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": typed(_CEL, {"expression": expression}),
        }
    }
