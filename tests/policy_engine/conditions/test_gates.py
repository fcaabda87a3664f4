"""The public contract's words in Envoy's: what they become, and what is left to the engine."""

import json
from typing import Any

import pytest

from policy_engine.conditions.gates import predicate, understood
from policy_engine.conditions.names import Phase
from policy_engine.conditions.translation import NotNative
from policy_engine.policy import Gate

_OPERATORS = {"_==_": "==", "_!=_": "!=", "_&&_": "&&", "_||_": "||", "_>_": ">", "_>=_": ">="}


def text(node: Any) -> str:
    """An expression as people write it."""
    match node:
        case {"ident_expr": {"name": name}}:
            return str(name)
        case {"const_expr": constant}:
            ((kind, value),) = constant.items()
            return str(int(value)) if kind == "int64_value" else json.dumps(value)
        case {"list_expr": {"elements": elements}}:
            return f"[{', '.join(text(one) for one in elements)}]"
        case {"select_expr": {"operand": operand, "field": field, **test}}:
            return f"has({text(operand)}.{field})" if test else f"{text(operand)}.{field}"
        case {"call_expr": {"target": target, "function": function, "args": arguments}}:
            return f"{text(target)}.{function}({', '.join(text(one) for one in arguments)})"
        case {"call_expr": {"function": "!_", "args": [one]}}:
            return f"!({text(one)})"
        case {"call_expr": {"function": "_[_]", "args": [one, key]}}:
            return f"{text(one)}[{text(key)}]"
        case {"call_expr": {"function": "@in", "args": [one, many]}}:
            return f"{text(one)} in {text(many)}"
        case {"call_expr": {"function": "_?_:_", "args": [one, yes, no]}}:
            return f"({text(one)} ? {text(yes)} : {text(no)})"
        case {"call_expr": {"function": function, "args": [one, other]}}:
            return f"({text(one)} {_OPERATORS[function]} {text(other)})"
    raise AssertionError(node)


def translated(condition: str, phase: Phase | None = None) -> str | bool:
    gate = understood(condition).gate(phase, on_error=False)
    return text(json.loads(gate.expression)) if isinstance(gate, Gate) else gate


PLAN = 'request.headers["x-plan"]'
SHARED = 'metadata.filter_metadata["signalbox"]'


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('request.Method == "GET"', '(request.method == "GET")'),
        ('request.Path.startsWith("/a")', 'request.path.startsWith("/a")'),
        ('request.RequestID != ""', '(request.id != "")'),
        (
            'request.Headers["x-plan"][0] == "gold"',
            f'(({PLAN} == "gold") || {PLAN}.startsWith("gold,"))',
        ),
        (
            '"gold" != request.Headers["x-plan"][0]',
            f'!((({PLAN} == "gold") || {PLAN}.startsWith("gold,")))',
        ),
        ('request.Headers["x-plan"][0] == "a, b"', f'({PLAN} == "a, b")'),
        ('request.Headers["x-plan"][0].contains("o")', f'{PLAN}.contains("o")'),
        ('request.Headers["x-plan"][0] in ["a", "b"]', f'{PLAN} in ["a", "b"]'),
        (
            '"a.b" in request.Headers["x-plan"]',
            PLAN + '.matches("^(.*,)?[ \\\\t]*a\\\\.b[ \\\\t]*(,.*)?$")',
        ),
        ('"x-plan" in request.Headers', '"x-plan" in request.headers'),
        ("has(request.Headers.host)", "has(request.headers.host)"),
        ("request.Headers.host[0] == 'a,b'", '(request.headers["host"] == "a,b")'),
        ("request.Metadata.plan == 'gold'", f'({SHARED}["plan"] == "gold")'),
        ("request.Metadata['a'].b == 1", f'({SHARED}["a"].b == 1)'),
        (
            "'plan' in response.Metadata",
            f'("signalbox" in metadata.filter_metadata && "plan" in {SHARED})',
        ),
        ("response.ResponseStatus >= 500", "(response.code >= 500)"),
        ("response.RequestMethod == 'GET'", '(request.method == "GET")'),
        (
            "response.ResponseHeaders['x-a'][0].endsWith('b')",
            'response.headers["x-a"].endsWith("b")',
        ),
        ('request.host == "a" && source.port > 1', '((request.host == "a") && (source.port > 1))'),
        ("true && !false", True),
        ("request.Method in []", "request.method in []"),
    ],
)
def test_the_contracts_names_become_envoys(written: str, expected: str | bool) -> None:
    assert translated(written) == expected


@pytest.mark.parametrize(
    ("written", "asked", "answered"),
    [
        ('processing.phase == "request"', True, False),
        ('processing.phase == "response"', False, "(response.code > 0)"),
        (
            'processing.phase == "response" && request.Method == "GET"',
            False,
            '((response.code > 0) && (request.method == "GET"))',
        ),
        (
            'processing.phase in ["request", "other"] && request.Method == "GET"',
            '(request.method == "GET")',
            False,
        ),
        (
            'processing.phase == "request" ? request.Method == "GET" '
            ": response.ResponseStatus >= 500",
            '(request.method == "GET")',
            "((response.code > 0) && (response.code >= 500))",
        ),
    ],
)
def test_phases_are_decided_beforehand(
    written: str, asked: str | bool, answered: str | bool
) -> None:
    assert translated(written, "request") == asked
    assert translated(written, "response") == answered


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("request.Body.size == 1", "Envoy looks at no bodies"),
        ("response.ResponseBody == {}", "Envoy looks at no bodies"),
        ("request.Headers['x'].exists(one, one == 'a')", "macros and maps"),
        ("request.Headers['x'][1] == 'a'", "does not tell the lines"),
        ("request.Headers['x'] == ['a']", "list of lines"),
        ("size(request.Headers) > 1", "Envoy has no request.Headers"),
        ("request.Headers[request.Method][0] == 'a'", "list of lines"),
        ("request.Path + 'x' == 'a'", "does not compute"),
        ("string(response.ResponseStatus) == '200'", "does not compute string"),
        ("request.Method in request.Headers['allow']", "not written out"),
        ("request.Method in request.Metadata", "not written out"),
    ],
)
def test_what_envoy_cannot_decide_is_told(written: str, reason: str) -> None:
    with pytest.raises(NotNative, match=reason):
        translated(written)


def test_equal_conditions_are_equal_however_they_are_spaced() -> None:
    one = understood("request.Method=='GET'").gate(None, on_error=True)
    other = understood('request.Method  ==  "GET"').gate(None, on_error=True)
    assert one == other


def test_a_gate_that_holds_on_error_is_asked_for_its_opposite() -> None:
    for on_error in (False, True):
        gate = understood("request.Method == 'GET'").gate(None, on_error=on_error)
        assert isinstance(gate, Gate)
        matcher = predicate(gate)["single_predicate"]["custom_match"]["typed_config"]
        top = matcher["expr_match"]["cel_expr_parsed"]["expr"]["call_expr"]["function"]
        assert top == ("!_" if on_error else "_==_")
