"""request-rewrite."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from policy_engine.errors import PolicyNotCompiled
from policy_engine.lua import Value, constants, lua, program
from policy_engine.parameters.headers import HeaderName
from policy_engine.parameters.paths import PathValue, guarded_segments
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Routing,
    Scope,
    Version,
    typed,
)

_TO_METADATA = "envoy.extensions.filters.http.header_to_metadata.v3.Config"
_SUBJECT = "x-signalbox-rewrite-"
_NOT_RE2 = re.compile(r"\(\?(?:=|!|<=|<!|>|P=|\()|(?<!\\)(?:\\\\)*\\[1-9]")
_REFERENCE = re.compile(r"\\(.?)", re.DOTALL)
_NOT_IN_A_PATH = re.compile(r"[\s\x00-\x1f\x7f?#]")

Method = Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
Step = dict[str, Value]


def _pattern(pattern: str) -> str:
    if _NOT_RE2.search(pattern):
        raise ValueError("look-around and back-references are not supported (RE2)")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"regular expression is invalid: {error}") from error
    return pattern


Pattern = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_pattern)]
Substitution = Annotated[str, Field(max_length=1024)]
Text = Annotated[str, Field(max_length=2048)]
ParameterName = Annotated[str, Field(min_length=1, max_length=256)]


def _references(pattern: str, substitution: str) -> None:
    groups = re.compile(pattern).groups
    for reference in _REFERENCE.findall(substitution):
        if reference == "\\":
            continue
        if reference not in set("0123456789"):
            raise ValueError("substitution: after '\\' there must be a digit or another '\\'")
        if int(reference) > groups:
            raise ValueError(f"substitution: pattern has no group {reference}")


def _of_nothing(pattern: str, substitution: str) -> str:
    """What becomes of the empty string: Envoy does not look at it."""
    return re.sub(pattern, _REFERENCE.sub(_as_python, substitution), "")


def _as_python(reference: re.Match[str]) -> str:
    return r"\\" if reference[1] == "\\" else rf"\g<{reference[1]}>"


class Condition(Parameters):
    """What a header or a query parameter must be."""

    type: Literal["Exact", "Regex", "Present"]
    """`Exact`: equal to `value`. `Regex`: `value` is an RE2 expression that is found anywhere in
    it. `Present`: it is there, also empty."""

    value: Annotated[str, Field(max_length=1024)] | None = None
    """What to compare with; required unless `Present`. Several values are joined by `,`."""

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.type == "Present":
            if self.value is not None:
                raise ValueError("value has no meaning with type Present")
        elif self.value is None:
            raise ValueError(f"value is required with type {self.type}")
        elif self.type == "Regex":
            _pattern(self.value)
        return self


class HeaderCondition(Condition):
    """What a header must be."""

    name: HeaderName
    """The header, in any case."""


class QueryCondition(Condition):
    """What a query parameter must be."""

    name: ParameterName
    """The query parameter, decoded."""


class Conditions(Parameters):
    """Which requests are rewritten: those for which all conditions hold."""

    headers: Annotated[tuple[HeaderCondition, ...], Field(max_length=20)] = ()
    """Headers of the request, as the policies before have left them."""

    query_params: Annotated[tuple[QueryCondition, ...], Field(max_length=20)] = ()
    """Query parameters, decoded."""


class Replacement(Parameters):
    """A regular expression and what takes the place of what it finds."""

    pattern: Pattern
    r"""What to look for, in RE2's syntax: every match is replaced."""

    substitution: Substitution
    r"""What takes its place; `\1` is the first group, `\0` the whole match, `\\` a backslash."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _references(self.pattern, self.substitution)
        if _NOT_IN_A_PATH.search(self.substitution) or not self.substitution.isascii():
            raise ValueError(
                "substitution must be part of a path: no spaces, '?', '#' or other than ASCII"
            )
        return self


class PathRewrite(Parameters):
    """How the path below the API's context is rewritten; the query stays."""

    type: Literal["ReplacePrefixMatch", "ReplaceFullPath", "ReplaceRegexMatch"]
    """Which of the three below is meant; that one is required, the others must not be there."""

    replace_prefix_match: PathValue | None = None
    """Takes the place of what the policy stands for: the operation's path up to its `*`, or,
    attached to the API, the `/` after the context. A path that begins otherwise stays."""

    replace_full_path: PathValue | None = None
    """Takes the place of the whole path."""

    replace_regex_match: Replacement | None = None
    """Replaces what a regular expression finds in the path."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = {
            "ReplacePrefixMatch": ("replacePrefixMatch", self.replace_prefix_match),
            "ReplaceFullPath": ("replaceFullPath", self.replace_full_path),
            "ReplaceRegexMatch": ("replaceRegexMatch", self.replace_regex_match),
        }
        for kind, (name, value) in given.items():
            if (value is not None) != (kind == self.type):
                needed = "is required" if kind == self.type else "has no meaning"
                raise ValueError(f"{name} {needed} with type {self.type}")
        return self

    def steps(self, scope: Scope) -> list[Step]:
        """What to do."""
        match self:
            case PathRewrite(replace_full_path=str(value)):
                return [{"action": "full", "value": value}]
            case PathRewrite(replace_prefix_match=str(value)):
                pattern = "^" + "".join(
                    "/[^/]+" if part.startswith("{") else "/" + re.sub(r"(\W)", r"%\1", part)
                    for part in guarded_segments(scope)
                )
                return [{"action": "prefix", "pattern": pattern, "value": value.rstrip("/")}]
            case PathRewrite(replace_regex_match=Replacement() as found):
                empty = _of_nothing(found.pattern, found.substitution)
                regex: Step = {"pattern": found.pattern, "substitution": found.substitution}
                return [{"action": "path", "empty": empty, **regex}]
        return []


class QueryRule(Parameters):
    """One change of a query parameter."""

    action: Literal["Replace", "Remove", "Add", "Append", "ReplaceRegexMatch"]
    """`Replace` leaves the parameter once, with `value`. `Remove` takes it away. `Add` adds one
    more. `Append` puts `separator` and `value` behind its first value, or adds it.
    `ReplaceRegexMatch` replaces what `pattern` finds in its value; a request that holds the
    parameter twice is refused with 400 then."""

    name: ParameterName
    """The parameter, decoded."""

    value: Text | None = None
    """The value, decoded; required by Replace, Add and Append."""

    separator: Annotated[str, Field(max_length=16)] | None = None
    """What stands between the old and the new value; for Append only. Nothing by default."""

    pattern: Pattern | None = None
    """What to look for in the decoded value, in RE2's syntax; required by ReplaceRegexMatch."""

    substitution: Substitution | None = None
    r"""What takes the place of every match, with `\1` for groups; required by ReplaceRegexMatch."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        valued = self.action in ("Replace", "Add", "Append")
        regex = self.action == "ReplaceRegexMatch"
        wanted = {
            "value": (valued, self.value),
            "pattern": (regex, self.pattern),
            "substitution": (regex, self.substitution),
        }
        for name, (needed, value) in wanted.items():
            if needed != (value is not None):
                words = "is required" if needed else "has no meaning"
                raise ValueError(f"{name} {words} with action {self.action}")
        if self.separator is not None and self.action != "Append":
            raise ValueError(f"separator has no meaning with action {self.action}")
        if self.pattern is not None and self.substitution is not None:
            _references(self.pattern, self.substitution)
        return self

    def step(self) -> Step:
        """What to do."""
        step: Step = {"name": self.name}
        if self.pattern is not None and self.substitution is not None:
            empty = _of_nothing(self.pattern, self.substitution)
            regex: Step = {"pattern": self.pattern, "substitution": self.substitution}
            return {"action": "query", "empty": empty, **step, **regex}
        if self.action == "Append":
            step["separator"] = self.separator or ""
        return {"action": self.action.lower(), "value": self.value, **step}


class QueryRewrite(Parameters):
    """How the query is rewritten."""

    rules: Annotated[tuple[QueryRule, ...], Field(min_length=1, max_length=50)]
    """Changes, each on what the one before has left."""


class RequestRewrite(Policy):
    """Rewrites path, query and method of the request to the upstream.

    Paths are those below the API's context: neither the context nor the upstream's base path is
    part of them. Later policies see what was rewritten; which operation a request is has been
    decided before. A path or value of more than 8 KiB that a regular expression would have to look
    at is refused with 414.
    """

    name: ClassVar[str] = "request-rewrite"
    version: ClassVar[Version] = Version(1, 0, 2)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "match": {"headers": [{"name": "X-Client", "type": "Exact", "value": "mobile"}]},
        "pathRewrite": {
            "type": "ReplaceRegexMatch",
            "replaceRegexMatch": {"pattern": "^/v1/(.*)$", "substitution": r"/v2/\1"},
        },
        "queryRewrite": {
            "rules": [
                {"action": "Remove", "name": "debug"},
                {"action": "Append", "name": "tags", "value": "gateway", "separator": ","},
            ]
        },
    }

    match: Conditions | None = None
    """Which requests are rewritten; all by default."""

    path_rewrite: PathRewrite | None = None
    """How the path is rewritten."""

    query_rewrite: QueryRewrite | None = None
    """How the query is rewritten."""

    method_rewrite: Method | None = None
    """The method that the upstream sees. `HEAD` is refused by the router, with the reason on the
    API's status, and HEAD requests keep theirs: their answers end without a body."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.path_rewrite or self.query_rewrite or self.method_rewrite):
            raise ValueError("pathRewrite, queryRewrite or methodRewrite is required")
        return self

    def routing(self) -> Routing:
        """The path is moved."""
        return Routing(moves_path=self.path_rewrite is not None)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`lua`, in parts; between two of them `header_to_metadata` does what needs RE2.

        Raises PolicyNotCompiled for methodRewrite HEAD.
        """
        if self.method_rewrite == "HEAD":
            raise PolicyNotCompiled(
                self.name,
                "methodRewrite HEAD: callers would wait for a body that never comes",
                parameter="methodRewrite",
            )
        name = scope.unique(self.name)
        conditions, asked = self._conditions()
        parts: list[tuple[str, list[Step]]] = []
        if asked:
            parts.append(("always", asked))
        parts.append(("decide", []))
        for number, step in enumerate(self._steps(scope), start=len(asked)):
            if "pattern" in step and step["action"] != "prefix":
                found = {**step, "number": number}
                parts[-1][1].append({**found, "action": f"ask_{step['action']}"})
                parts.append(("follow", [found]))
            else:
                parts[-1][1].append(step)
        filters: list[HttpFilter] = []
        for at, (run, steps) in enumerate(parts):
            source = constants(
                CONTEXT="" if scope.context == "/" else scope.context,
                MEMORY=_memory(name),
                RUN=run,
                CONDITIONS=conditions if run == "decide" else [],
                STEPS=[_for_lua(step) for step in steps],
            )
            source += program("request_rewrite.lua")
            filters.append(HttpFilter(f"{name}.{at}" if at else name, lua(source)))
            questions = [step for step in steps if str(step["action"]).startswith("ask_")]
            if questions:
                filters.append(HttpFilter(f"{name}.{at}.regex", _answers(name, questions)))
        return tuple(filters)

    def _steps(self, scope: Scope) -> list[Step]:
        steps = self.path_rewrite.steps(scope) if self.path_rewrite else []
        if self.query_rewrite:
            steps += [rule.step() for rule in self.query_rewrite.rules]
        if self.method_rewrite:
            steps.append({"action": "method", "value": self.method_rewrite})
        return steps

    def _conditions(self) -> tuple[list[Value], list[Step]]:
        """The conditions, and what to ask RE2 before they can be decided."""
        wanted = self.match or Conditions()
        conditions: list[Value] = []
        asked: list[Step] = []
        named: list[tuple[Step, Condition]] = []
        for header in wanted.headers:
            named.append(({"header": header.name.lower()}, header))
        for parameter in wanted.query_params:
            named.append(({"query": parameter.name}, parameter))
        for condition, one in named:
            if one.type == "Exact":
                condition["exact"] = one.value
            elif one.value is not None:
                condition |= {"number": len(asked), "empty": bool(re.search(one.value, ""))}
                asked.append(
                    {
                        **condition,
                        "action": "ask_condition",
                        "pattern": one.value,
                        "substitution": "",
                    }
                )
            conditions.append(condition)
        return conditions, asked


def _for_lua(step: Step) -> Value:
    """Without what only `header_to_metadata` has to know."""
    if step["action"] == "prefix":
        return step
    return {key: one for key, one in step.items() if key not in ("pattern", "substitution")}


def _memory(name: str) -> str:
    return f"signalbox.{name}"


def _answers(name: str, questions: list[Step]) -> Document:
    """For each subject: `s`, as it is; `r`, replaced; `m`, replaced with a mark at each match."""
    rules: list[Document] = []
    for step in questions:
        substitutions = {"s": None, "r": step["substitution"], "m": f"{step['substitution']}\\0!"}
        for key, substitution in substitutions.items():
            present: Document = {
                "metadata_namespace": _memory(name),
                "key": f"{key}{step['number']}",
            }
            if substitution is not None:
                present["regex_value_rewrite"] = {
                    "pattern": {"regex": step["pattern"]},
                    "substitution": substitution,
                }
            header = f"{_SUBJECT}{step['number']}"
            rules.append({"header": header, "on_header_present": present})
        rules[-1]["remove"] = True
    return typed(_TO_METADATA, {"request_rules": rules})
