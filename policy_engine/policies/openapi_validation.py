"""openapi-validation."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import unquote
from weakref import WeakValueDictionary

import orjson
import structlog
from pydantic import Field, PrivateAttr, model_validator

from bus.resources.document import wrong
from policy_engine.bodies.content_coding import Unreadable, decoded
from policy_engine.bodies.event_stream import is_event_stream
from policy_engine.bodies.json_path import Json
from policy_engine.hooks import (
    Answer,
    BodyVerdict,
    Exchange,
    Headers,
    Phase,
    PythonPolicy,
    Response,
    Verdict,
    json_answer,
)
from policy_engine.openapi.bodies import content
from policy_engine.openapi.description import Answered, Body, Description, Fault, Operation
from policy_engine.openapi.parameters import (
    Carried,
    Malformed,
    Parameter,
)
from policy_engine.policy import Document, Version

MOST_FAULTS: Final = 20

_FIRST_ERROR: Final = 400
_WITHOUT_BODY: Final = frozenset({204, 205, 304})

log = structlog.get_logger()

_descriptions: "WeakValueDictionary[str, Description]" = WeakValueDictionary()


def _description(document: Json, *, answers: bool) -> Description:
    """One for all policies of this process that have the same document. Raises ValueError."""
    name = sha256(orjson.dumps([document, answers])).hexdigest()
    found = _descriptions.get(name)
    if found is None:
        found = _descriptions[name] = Description(document, answers=answers)
    return found


class OpenapiValidation(PythonPolicy):
    """Lets only requests pass that the API's OpenAPI document describes, and checks its answers.

    Looked at are parameters in path, query, headers and cookies, the media type of the body, and
    bodies in JSON, XML, and of both kinds of forms. What differs is answered with 400, and told
    place by place; what the document does not have at all, with 404. Paths of the document are
    those below the API's context; its servers do not matter. References must stay inside the
    document.

    XML is read as the schemas say (`xml`: `name`, `attribute`, `wrapped`, `namespace`); without a
    `namespace` any will do, prefixes do not matter, and what is not described is a property of its
    name. Document types, and with them entities, are refused, as is what is deeper than 100 levels
    or has more than 50,000 elements and attributes.

    Parts of `multipart/form-data` are properties: in JSON where they are objects, of the media
    types in `encoding`, and where they are binary (`format: binary`, `contentMediaType`, or a
    `contentType` that is no text) `minLength` and `maxLength` count bytes. The `headers` of
    `encoding` are not looked at.
    """

    name: ClassVar[str] = "openapi-validation"
    version: ClassVar[Version] = Version(1, 1, 0)
    why_python: ClassVar[str] = "it checks requests against an OpenAPI document"
    example: ClassVar[Document] = {
        "document": {
            "openapi": "3.1.0",
            "info": {"title": "Orders", "version": "1.0"},
            "paths": {
                "/": {
                    "get": {
                        "parameters": [
                            {"name": "limit", "in": "query", "schema": {"type": "integer"}}
                        ],
                        "responses": {"200": {"description": "Some orders."}},
                    }
                }
            },
        }
    }

    document: dict[str, Any] | Annotated[str, Field(min_length=1)]
    """The API's OpenAPI document, 3.0 or 3.1: an object, or JSON or YAML as text, at most 512 KiB.
    Patterns in it cannot look around or refer back."""

    undescribed: Literal["refuse", "pass"] = "refuse"
    """What becomes of requests for operations that the document does not have."""

    responses: Literal["off", "report", "enforce"] = "off"
    """Whether answers are checked. `report`: what differs is logged, and stands in the dynamic
    metadata `openapi-validation` of namespace `signalbox`. `enforce`: such an answer is replaced
    by 502; answers of 400 and above that the document does not have still pass."""

    _compiled: Description = PrivateAttr()

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            self._compiled = _description(self.document, answers=self.responses != "off")
        except ValueError as error:
            raise wrong(str(error), "document") from None
        return self

    def phases(self) -> frozenset[Phase]:
        """No bodies where the document has none."""
        phases: set[Phase] = {"request_headers"}
        if self._compiled.has_bodies:
            phases.add("request_body")
        if self.responses != "off":
            phases |= {"response_headers", "response_body", "response_chunk"}
        return frozenset(phases)

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        """Check the path, the parameters, and whether there must be a body."""
        request = exchange.request
        path = _below(exchange.place.context, request.path)
        found = self._compiled.operation(request.method, path)
        if found is None:
            return None if self.undescribed == "pass" else _undescribed(request.method, path)
        operation, in_path = found
        exchange.notes[id(self)] = operation
        if self.responses != "off":
            request.headers.remove("accept-encoding")
        if not operation.parameters:
            return None
        carried = Carried(request.headers, request.path, in_path)
        return _refused(self._wrong_parameters(operation.parameters, carried))

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """Check the body."""
        operation: Operation | None = exchange.notes.get(id(self))
        if operation is None or operation.body is None:
            return None
        return _refused(self._wrong_body(operation.body, exchange.request.headers, body))

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        """Check status, headers and media type."""
        operation: Operation | None = exchange.notes.get(id(self))
        if operation is None or exchange.response is None:
            return None
        return self._answered(exchange, self._wrong_answer(operation, exchange.response))

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """Check the body."""
        operation: Operation | None = exchange.notes.get(id(self))
        response = exchange.response
        if operation is None or response is None or exchange.request.method == "HEAD":
            return None
        said = operation.answered(response.status)
        if said is None or response.status in _WITHOUT_BODY or is_event_stream(response.headers):
            return None
        return self._answered(exchange, self._wrong_content(said, response.headers, body))

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        """Streams pass; other answers that are too long to be held cannot be checked."""
        del chunk, last
        response = exchange.response
        if (
            response is None
            or is_event_stream(response.headers)
            or (id(self), "told") in exchange.notes
        ):
            return None
        exchange.notes[id(self), "told"] = True
        return self._answered(exchange, [Fault("body", "", "is too long to be checked")])

    def _wrong_parameters(
        self, parameters: Iterable[Parameter], carried: Carried
    ) -> Iterator[Fault]:
        for one in parameters:
            try:
                value = one.value(carried)
            except LookupError:
                if one.required:
                    yield Fault(one.place, one.name, "is required")
                continue
            except Malformed as error:
                yield Fault(one.place, one.name, str(error))
                continue
            if one.may_be_empty and value == "":
                continue
            if self._compiled.fits(one.key, value):
                continue
            if "string" in one.shape.kinds and not isinstance(value, str | list | dict):
                text = one.text(carried)
                if self._compiled.fits(one.key, text):
                    continue
            for where, message in self._compiled.faults(one.key, value):
                yield Fault(one.place, f"{one.name}.{where}" if where else one.name, message)

    def _wrong_body(self, said: Body, headers: Headers, body: bytes) -> Iterator[Fault]:
        if not body:
            if said.required:
                yield Fault("body", "", "is required")
            return
        content_type = headers.get("content-type") or ""
        medium = said.medium(content_type)
        if medium is None:
            if said.media:
                known = ", ".join(said.media)
                given = f"is {content_type[:100]!r}" if content_type else "is missing"
                yield Fault("header", "content-type", f"{given}; the body may be {known}")
            return
        if medium.key is None:
            return
        try:
            read = content(content_type, medium, decoded(headers, body))
        except Malformed as error:
            yield Fault("body", error.where, str(error))
            return
        except Unreadable as error:
            yield Fault("body", "", str(error))
            return
        if read is not None and not self._compiled.fits(medium.key, read.value):
            for where, message in self._compiled.faults(medium.key, read.value):
                shown = where.partition(".")[0] not in read.binary
                yield Fault("body", where, message if shown else "is not as described")

    def _wrong_answer(self, operation: Operation, response: Response) -> Iterator[Fault]:
        said = operation.answered(response.status)
        if said is None:
            if response.status < _FIRST_ERROR or self.responses == "report":
                yield Fault("status", "", f"{response.status} is not described")
            return
        carried = Carried(response.headers, "", {})
        for one in said.headers:
            try:
                value = one.value(carried)
            except LookupError:
                if one.required:
                    yield Fault("header", one.name, "is required")
                continue
            except Malformed as error:
                yield Fault("header", one.name, str(error))
                continue
            for where, message in self._compiled.broken_rules(one.key, value):
                yield Fault("header", f"{one.name}.{where}" if where else one.name, message)

    def _wrong_content(self, said: Answered, headers: Headers, body: bytes) -> Iterator[Fault]:
        if not said.body.media:
            return
        content_type = headers.get("content-type") or ""
        medium = said.body.medium(content_type)
        if medium is None:
            if body:
                yield Fault("header", "content-type", "is not described")
            return
        if medium.key is None:
            return
        try:
            read = content(content_type, medium, decoded(headers, body))
        except Malformed as error:
            yield Fault("body", error.where, str(error))
            return
        except Unreadable as error:
            yield Fault("body", "", str(error))
            return
        if read is not None:
            for where, message in self._compiled.broken_rules(medium.key, read.value):
                yield Fault("body", where, message)

    def _answered(self, exchange: Exchange, wrong: Iterable[Fault]) -> Answer | None:
        faults = [one.document() for one in islice(wrong, MOST_FAULTS)]
        if not faults:
            return None
        place, path = exchange.place, exchange.request.path.partition("?")[0]
        exchange.published[self.name] = faults[0]
        log.warning(
            "answer_differs_from_openapi_document", api=place.api_id, path=path, faults=faults
        )
        if self.responses == "report":
            return None
        return json_answer(
            502,
            {
                "error": "Bad Gateway",
                "message": "The answer of the upstream is not as the API describes it",
                "faults": faults,
            },
            reason="the answer differs from the OpenAPI document",
        )


def _below(context: str, path: str) -> str:
    """The path below the API's context, without its query."""
    bare = path.partition("?")[0].partition("#")[0]
    if context != "/" and (bare == context or bare.startswith(f"{context}/")):
        bare = bare[len(context) :]
    return bare or "/"


def _undescribed(method: str, path: str) -> Answer:
    message = f"The API does not describe {method} {unquote(path)[:200]}"
    return json_answer(404, {"error": "Not Found", "message": message}, reason=message)


def _refused(wrong: Iterable[Fault]) -> Answer | None:
    faults = [one.document() for one in islice(wrong, MOST_FAULTS)]
    if not faults:
        return None
    return json_answer(
        400,
        {
            "error": "Bad Request",
            "message": "The request is not as the API describes it",
            "faults": faults,
        },
        reason="the request differs from the OpenAPI document",
    )
