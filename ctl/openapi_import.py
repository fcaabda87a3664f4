"""OpenAPI 3.x and Swagger 2.0 documents as RestApi resources.

Only what a gateway routes by is read: paths, methods, title, version and servers. Everything that
had to be changed, or cannot be expressed, is told: nothing is dropped silently.

Source: https://spec.openapis.org/oas/v3.1.1.html, https://swagger.io/specification/v2/
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from bus.resources import faults
from bus.resources.document import API_VERSION
from bus.resources.rest_api import RestApi, RestApiSpec
from ctl.errors import Refused

Json = dict[str, Any]

METHODS = ("get", "post", "put", "delete", "patch", "head", "options")
"""What a RestApi can route, in the order of an operation list."""

_OTHER_METHODS = ("trace", "query", "connect")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9\-_. ]+")
_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")
_NUMBERS = re.compile(r"v?(\d+)(?:\.(\d+))?", re.IGNORECASE)
_VERSION = re.compile(r"v\d+\.\d+")
_PARAMETER = re.compile(r"\{[^{}]+\}")


@dataclass(frozen=True, slots=True)
class Imported:
    """The resource, and what its reader should know."""

    resource: Json
    remarks: tuple[str, ...] = ()  # what was changed, and why
    left_out: tuple[str, ...] = ()  # operations that cannot be expressed, and why


def parse(text: str, source: str) -> Json:
    """The document as text, lists and mappings; scalars stay as written (`1.10` is no number).

    Raises Refused.
    """
    try:
        if text.lstrip().startswith("{"):
            document = json.loads(text, parse_float=str, parse_int=str)
        else:
            document = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 - text only
    except json.JSONDecodeError as error:
        raise Refused(f"{source}:{error.lineno}: not valid JSON: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Refused(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Refused(f"{source}: not valid YAML or JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refused(f"{source} is not an OpenAPI document: it is not a mapping")
    _check_format(document, source)
    return document


def convert(
    document: Json,
    *,
    upstream: str | None = None,
    name: str | None = None,
    context: str | None = None,
    version: str | None = None,
    validated: str | None = None,
) -> Imported:
    """The RestApi that routes the operations of `document`. Raises Refused.

    `validated`: the document's text, for a policy that lets only requests pass that it describes.
    """
    if validated is not None and "swagger" in document:
        raise Refused("requests can be validated against OpenAPI 3.x only, not Swagger 2.0")
    remarks: list[str] = []
    left_out: list[str] = []
    info = _mapping(document.get("info"))
    title = str(info.get("title") or "")
    display_name = _display_name(title, remarks)
    api_version = version or _version(str(info.get("version") or ""), remarks)
    slug = _NOT_IN_SLUGS.sub("-", _ascii(title).lower()).strip("-") or "api"
    operations = list(_operations(document, remarks, left_out))
    if not operations:
        raise Refused("the document has no operation that can be expressed", left_out)
    resource = {
        "apiVersion": API_VERSION,
        "kind": "RestApi",
        "metadata": {"name": name or f"{slug}-{api_version}"},
        "spec": {
            "displayName": display_name,
            "version": api_version,
            "context": context or f"/{slug}/$version",
            "upstream": {"main": {"url": _upstream(document, upstream, remarks)}},
            "operations": operations,
            **({} if validated is None else {"policies": [_validation(validated)]}),
        },
    }
    try:
        faults.parse(RestApi, resource)
    except faults.InvalidResource as error:
        raise Refused(
            "what was imported is not a RestApi",
            [f"{fault.field}: {fault.message}" for fault in error.faults],
        ) from error
    return Imported(resource, tuple(remarks), tuple(left_out))


def _validation(text: str) -> Json:
    return {"name": "openapi-validation", "version": "v1", "params": {"document": text}}


def _check_format(document: Json, source: str) -> None:
    if str(document.get("swagger", "")).startswith("2."):
        return
    if str(document.get("openapi", "")).startswith("3."):
        return
    found = document.get("openapi") or document.get("swagger")
    what = f"version {found!r}" if found else "neither openapi nor swagger"
    raise Refused(f"{source} is not an OpenAPI 3.x or Swagger 2.0 document: it says {what}")


def _display_name(title: str, remarks: list[str]) -> str:
    fitting = " ".join(_NOT_IN_NAMES.sub(" ", _ascii(title)).split())[:100].strip() or "API"
    if fitting != title:
        remarks.append(
            f"displayName is {fitting!r}, the title {title!r} holds what a displayName may not"
        )
    return fitting


def _ascii(text: str) -> str:
    """`text` with accents taken off its letters."""
    return "".join(
        char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)
    )


def _version(text: str, remarks: list[str]) -> str:
    """`text` as `v<major>.<minor>`: a path should not change with every patch."""
    if _VERSION.fullmatch(text):
        return text
    match = _NUMBERS.match(text)
    fitting = f"v{int(match[1])}.{int(match[2] or 0)}" if match else "v1.0"
    remarks.append(
        f"version is {fitting!r}, the document says {text!r}; --api-version sets another"
    )
    return fitting


def _upstream(document: Json, given: str | None, remarks: list[str]) -> str:
    server = _server(document)
    if given is None:
        if not urlsplit(server).scheme.startswith("http"):
            raise Refused(
                "the document names no absolute server URL: say where requests go with --upstream"
            )
        return server.rstrip("/")
    base_path = urlsplit(server).path.rstrip("/")
    given = given.rstrip("/")
    if base_path and not urlsplit(given).path:
        remarks.append(
            f"requests go to {given} and the operation's path; the document's server has the base"
            f" path {base_path}: if the upstream has it too, say --upstream {given}{base_path}"
        )
    return given


def _server(document: Json) -> str:
    """The first server's URL with the defaults of its variables; empty when there is none."""
    if "swagger" in document:
        host = str(document.get("host") or "")
        schemes = document.get("schemes") or ["https"]
        scheme = "https" if "https" in schemes else str(schemes[0])
        base_path = str(document.get("basePath") or "")
        return f"{scheme}://{host}{base_path}" if host else base_path
    servers = document.get("servers")
    server = _mapping(servers[0]) if isinstance(servers, list) and servers else {}
    url = str(server.get("url") or "")
    for variable, meaning in _mapping(server.get("variables")).items():
        url = url.replace(f"{{{variable}}}", str(_mapping(meaning).get("default") or ""))
    return url


def _operations(document: Json, remarks: list[str], left_out: list[str]) -> Iterator[Json]:
    taken: dict[tuple[str, str], str] = {}
    for path, item in _mapping(document.get("paths")).items():
        if path.startswith("x-"):
            continue
        found, problem = _resolved(document, item)
        methods = [method for method in METHODS if method in found]
        if problem is None and methods:
            problem = _unroutable(path)
        if problem is not None:
            names = ", ".join(method.upper() for method in methods) or "all of"
            left_out.append(f"{names} {path}: {problem}")
            continue
        left_out.extend(
            f"{method.upper()} {path}: a RestApi has no method {method.upper()}"
            for method in _OTHER_METHODS
            if method in found
        )
        if methods and "servers" in found:
            remarks.append(f"{path} has servers of its own; its requests go to the upstream too")
        for method in methods:
            other = taken.setdefault((method, _shape(path)), path)
            if other != path:
                left_out.append(f"{method.upper()} {path}: {other} already matches the same paths")
                continue
            yield {"method": method.upper(), "path": path}


def _unroutable(path: str) -> str | None:
    """Why `path` cannot be an operation's path; None when it can."""
    probe = {"method": "GET", "path": path}
    spec = {
        "displayName": "probe",
        "version": "v1.0",
        "context": "/probe",
        "upstream": {"main": {"url": "http://probe"}},
        "operations": [probe],
    }
    if "*" in path:
        return "'*' would match more than it says"
    try:
        faults.parse(RestApiSpec, spec)
    except faults.InvalidResource as error:
        return error.faults[0].message
    return None


def _shape(path: str) -> str:
    """`path` such that two paths which match the same requests are equal."""
    return _PARAMETER.sub("{}", path).rstrip("/") or "/"


def _resolved(document: Json, item: object) -> tuple[Json, str | None]:
    """A path item with its `$ref` followed, and why it could not be."""
    seen: set[str] = set()
    found = _mapping(item)
    while "$ref" in found:
        pointer = str(found["$ref"])
        if not pointer.startswith("#/"):
            return found, f"it stands in another document ({pointer}); bundle them first"
        if pointer in seen:
            return found, f"{pointer} refers to itself"
        seen.add(pointer)
        target: object = document
        for step in pointer[2:].split("/"):
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        if not isinstance(target, dict):
            return found, f"{pointer} does not exist"
        siblings = {key: value for key, value in found.items() if key != "$ref"}
        found = {**target, **siblings}
    return found, None


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}
