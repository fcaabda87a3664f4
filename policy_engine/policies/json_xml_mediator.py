"""json-xml-mediator."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from policy_engine.bodies.content_coding import Unreadable, decoded
from policy_engine.bodies.xml_json import NotConverted, json_to_xml, xml_to_json
from policy_engine.hooks import Answer, BodyVerdict, Exchange, Headers, PythonPolicy, json_answer
from policy_engine.policy import Document, Version

Format = Literal["json", "xml"]

_TYPES: dict[Format, str] = {"json": "application/json", "xml": "application/xml"}
_WORDS: dict[Format, str] = {"json": "JSON", "xml": "XML"}


class JsonXmlMediator(PythonPolicy):
    """Lets callers speak JSON with an upstream that speaks XML, or the other way round.

    Bodies are converted both ways, with `Content-Type`; `Accept` and `Accept-Encoding` are set to
    what can be converted. XML to JSON: attributes are members that start with `@`, text beside them
    is `#text`, elements of one name are a list, an empty element is null. JSON to XML: the same
    backwards, inside an element `root` (which the way back takes off again); a list is an element
    with one element per item, called by its singular (`items`: `item`). Characters that no XML name
    can have become `_`. Document types, and with them entities, are refused, as is what is deeper
    than 100 levels or has more than 100,000 elements. Bodies compressed with gzip, deflate, br or
    zstd are read, up to 16 MiB decompressed, and go on uncompressed.

    Empty bodies stay. A request whose body is not what `downstreamPayloadFormat` says is answered
    400. An answer whose `Content-Type` is of neither form, such as an error page, or already the
    caller's, stays; one that should be converted and cannot is answered 500.
    """

    name: ClassVar[str] = "json-xml-mediator"
    version: ClassVar[Version] = Version(1, 0, 4)
    why_python: ClassVar[str] = "Envoy has no filter that converts bodies"
    example: ClassVar[Document] = {
        "downstreamPayloadFormat": "json",
        "upstreamPayloadFormat": "xml",
    }

    upstream_payload_format: Format
    """What the upstream takes and answers: `json` or `xml`."""

    downstream_payload_format: Format | None = None
    """What callers send and get: the other one. Required."""

    downsteam_payload_format: Annotated[Format | None, Field(deprecated=True)] = None
    """Deprecated: the same, misspelt."""

    detect_types: bool = False
    """Whether XML to JSON makes numbers and booleans of texts that look like them. Off, they stay
    texts, and nothing is lost: leading zeros, long numbers."""

    @model_validator(mode="after")
    def _two_formats(self) -> Self:
        given = {one for one in (self.downstream_payload_format, self._misspelt) if one is not None}
        if not given:
            raise ValueError("downstreamPayloadFormat is required")
        if len(given) > 1:
            raise ValueError("downstreamPayloadFormat and downsteamPayloadFormat differ")
        if self.upstream_payload_format in given:
            raise ValueError("downstreamPayloadFormat and upstreamPayloadFormat must differ")
        return self

    @property
    def _misspelt(self) -> Format | None:
        found: Format | None = self.__dict__.get("downsteam_payload_format")
        return found

    @property
    def _callers(self) -> Format:
        return "json" if self.upstream_payload_format == "xml" else "xml"

    def on_request_headers(self, exchange: Exchange) -> None:
        """The upstream is asked for what can be converted."""
        headers = exchange.request.headers
        headers.remove("accept-encoding")
        if "accept" in headers:
            headers.set("accept", _TYPES[self.upstream_payload_format])

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """From the caller's form to the upstream's."""
        headers, theirs = exchange.request.headers, self._callers
        if not body:
            return None
        kind = _form(headers)
        if kind not in (theirs, None):
            return _refused(400, f"The request body must be {_WORDS[theirs]} ({_TYPES[theirs]})")
        try:
            return self._converted(headers, body, theirs)
        except NotConverted as error:
            return _refused(400, f"The request body cannot be converted: {error}")

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """From the upstream's form to the caller's."""
        if not body or exchange.response is None:
            return None
        headers, theirs = exchange.response.headers, self.upstream_payload_format
        if _form(headers) not in (theirs, None):
            return None
        try:
            return self._converted(headers, body, theirs)
        except NotConverted as error:
            return _refused(500, f"The upstream's answer cannot be converted: {error}")

    def _converted(self, headers: Headers, body: bytes, form: Format) -> bytes:
        """`body` in the other form. Raises NotConverted."""
        try:
            body = decoded(headers, body)
        except Unreadable as error:
            raise NotConverted(str(error)) from None
        charset = _charset(headers)
        if form == "xml":
            made = xml_to_json(body, encoding=charset, detect_types=self.detect_types)
            headers.set("content-type", _TYPES["json"])
        else:
            if charset not in (None, "utf-8", "us-ascii"):
                raise NotConverted(f"JSON is UTF-8, not {charset}")
            made = json_to_xml(body)
            headers.set("content-type", _TYPES["xml"])
        headers.remove("content-encoding")
        return made


def _form(headers: Headers) -> str | None:
    """`json` or `xml`; another type as it stands; None without one."""
    declared = headers.get("content-type")
    if declared is None:
        return None
    kind = declared.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return "json"
    if kind in ("application/xml", "text/xml") or kind.endswith("+xml"):
        return "xml"
    return kind


def _charset(headers: Headers) -> str | None:
    for parameter in (headers.get("content-type") or "").split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return None


def _refused(status: int, message: str) -> Answer:
    error = "Bad Request" if status < 500 else "Internal Server Error"
    return json_answer(status, {"error": error, "message": message}, reason=message)
