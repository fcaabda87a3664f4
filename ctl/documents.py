"""Resources in files: read, checked and each with its place, before anything is sent.

A document's errors carry `file:line`, also those that the gateway finds later.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from bus.resources import faults
from ctl import kinds
from ctl.errors import Misused, Refused

Json = dict[str, Any]
SUFFIXES = (".yaml", ".yml", ".json")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Document:
    """One resource of a file."""

    kind: kinds.Kind
    name: str
    body: Json
    source: str  # the file, or `-`
    index: int  # which document of the file, from 1
    node: yaml.Node  # as written, for line numbers

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.kind.label(self.name)

    @property
    def place(self) -> str:
        """Where it starts: `file:line`."""
        return f"{self.source}:{self.node.start_mark.line + 1}"

    def place_of(self, field: str) -> str:
        """Where `field` (such as `spec.operations[0].method`) stands, or its nearest parent."""
        return f"{self.source}:{line_of(self.node, field)}"

    def annotated(self, key: str, value: str) -> "Document":
        """The document with one more annotation; kinds without any stay as they are."""
        if self.kind.record is not None:
            return self
        metadata = self.body["metadata"]
        annotations = {**(metadata.get("annotations") or {}), key: value}
        return replace(
            self, body={**self.body, "metadata": {**metadata, "annotations": annotations}}
        )


def load(sources: Iterable[str]) -> list[Document]:
    """All documents of files, directories (recursive, sorted) and `-`, in that order.

    Raises Misused for what cannot be read, Refused with every problem of every document.
    """
    documents: list[Document] = []
    problems: list[str] = []
    for source, text in _texts(sources):
        found, wrong = parse(text, source)
        documents.extend(found)
        problems.extend(wrong)
    problems.extend(_repeated(documents))
    if problems:
        count = len(problems)
        raise Refused(f"nothing was sent: {count} problem{'s' * (count > 1)} found", problems)
    if not documents:
        raise Refused("no documents found")
    return documents


def parse(text: str, source: str) -> tuple[list[Document], list[str]]:
    """The good documents of a text, and the problems of the others as `file:line: message`."""
    documents: list[Document] = []
    problems: list[str] = []
    loader = _Loader(text)
    try:
        index = 0
        while loader.check_node():
            node = loader.get_node()
            index += 1
            if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
                continue
            one = _checked(loader.construct_document(node), node, source, index)
            if isinstance(one, Document):
                documents.append(one)
            else:
                problems.extend(one)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        problems.append(f"{source}:{line}: not valid YAML or JSON: {said}")
    except (yaml.YAMLError, ValueError) as error:
        problems.append(f"{source}: not valid YAML or JSON: {error}")
    finally:
        loader.dispose()
    return documents, problems


def line_of(node: yaml.Node, field: str) -> int:
    """The line, from 1, of `field` in the document `node`, or of its nearest written parent."""
    line = node.start_mark.line
    for step in _STEP.finditer(field):
        if isinstance(node, yaml.MappingNode) and step[1] is not None:
            pair = next((pair for pair in node.value if pair[0].value == step[1]), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and step[2] is not None:
            if int(step[2]) >= len(node.value):
                break
            node = node.value[int(step[2])]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1


class _Loader(yaml.CSafeLoader):
    """YAML as JSON knows it: dates stay text, keys are text and stand once."""

    yaml_constructors = {
        **yaml.CSafeLoader.yaml_constructors,
        "tag:yaml.org,2002:timestamp": yaml.CSafeLoader.construct_yaml_str,
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text", key.start_mark
                )
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            key.tag = "tag:yaml.org,2002:str"  # 200: and on: are names here
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _texts(sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    for source in sources:
        if source == "-":
            yield "-", sys.stdin.buffer.read().decode("utf-8-sig", errors="replace")
            continue
        path = Path(source)
        if not path.exists():
            raise Misused(f"{source}: no such file or directory")
        for file in _files(path) if path.is_dir() else (path,):
            try:
                yield str(file), file.read_text("utf-8-sig")
            except OSError as error:
                raise Misused(f"{file} cannot be read: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise Misused(f"{file} is not a text file in UTF-8: {error}") from error


def _files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )


def _checked(body: object, node: yaml.Node, source: str, index: int) -> Document | list[str]:
    place = f"{source}:{node.start_mark.line + 1}: document {index}"
    if not isinstance(body, dict):
        return [f"{place} is not a mapping"]
    try:
        json.dumps(body, allow_nan=False)  # circles and NaN
        orjson.dumps(body)  # what is too large
    except (ValueError, TypeError) as error:
        return [f"{place} cannot be said in JSON: {error}"]
    word = body.get("kind")
    if word is None and ("openapi" in body or "swagger" in body):
        return [f"{place} is an OpenAPI document; see `signalbox import openapi`"]
    kind = kinds.by_file_name(word) if isinstance(word, str) else None
    if kind is None:
        what = "has no kind" if word is None else f"has unknown kind {word!r}"
        return [f"{place} {what}; kinds are: {', '.join(one.name for one in kinds.KINDS)}"]
    body = as_kept(body)
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    document = Document(kind, str(name or ""), body, source, index, node)
    return _faults(document) or document


def _faults(document: Document) -> list[str]:
    try:
        faults.parse(document.kind.model(), document.body)
    except faults.InvalidResource as error:
        return [
            f"{document.place_of(one.field)}: {document.label}: {one.field}: {one.message}"
            for one in error.faults
            if not _is_template(value_at(document.body, one.field))
        ]
    return []


def as_kept(body: Json) -> Json:
    """`body` as the gateway keeps it: without its read-only status and without empty fields.

    Null in a policy's parameters means what the policy says it means, and stays.
    """
    return {key: _without_nulls(key, value) for key, value in body.items() if key != "status"}


def _without_nulls(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict) and name != "params":
        return {key: _without_nulls(key, one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls("", one) for one in value]
    return value


def value_at(body: object, field: str) -> object:
    """What stands at `field`, such as `spec.operations[0].method`; None when nothing does."""
    for step in _STEP.finditer(field):
        if isinstance(body, dict) and step[1] is not None:
            body = body.get(step[1])
        elif isinstance(body, list) and step[2] is not None and int(step[2]) < len(body):
            body = body[int(step[2])]
        else:
            return None
    return body


def _is_template(given: object) -> bool:
    """Whether the gateway will put something else there, so that it cannot be checked here."""
    return isinstance(given, str) and "{{" in given


def _repeated(documents: Iterable[Document]) -> Iterator[str]:
    first: dict[tuple[str, str], Document] = {}
    for document in documents:
        known = first.setdefault((document.kind.name, document.name), document)
        if known is not document:
            yield f"{document.place}: {document.label} was already given at {known.place}"
