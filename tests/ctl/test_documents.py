"""Reading resources from files: what is taken, what is refused, and where it stands."""

import io
import json
from pathlib import Path

import pytest
import yaml

from ctl import documents
from ctl.errors import Misused, Refused
from tests.ctl.resources import rest_api

GOOD = yaml.safe_dump(rest_api("good"))
BROKEN = """\
# a comment moves the lines
apiVersion: gateway.api-platform.wso2.com/v1
kind: RestApi
metadata:
  name: broken
spec:
  displayName: broken
  version: 1.0
  context: /broken
  upstream:
    main:
      url: ftp://nowhere
  operations:
    - method: GET
      path: /x
    - method: FETCH
      path: /y
      colour: blue
"""


def problems_of(text: str) -> list[str]:
    return documents.parse(text, "f.yaml")[1]


def test_each_fault_has_its_line() -> None:
    problems = problems_of(BROKEN)
    assert any(p.startswith("f.yaml:8: api/broken: spec.version:") for p in problems)
    assert any(p.startswith("f.yaml:12: api/broken: spec.upstream.main.url:") for p in problems)
    assert any(p.startswith("f.yaml:16: api/broken: spec.operations[1].method:") for p in problems)
    assert any(p.startswith("f.yaml:18: api/broken: spec.operations[1].colour:") for p in problems)
    assert len(problems) == 4


def test_a_missing_field_is_told_at_its_parent() -> None:
    document = rest_api("bare")
    del document["spec"]["context"]
    [problem] = problems_of(yaml.safe_dump(document, sort_keys=False))
    assert problem == "f.yaml:5: api/bare: spec.context: Context is required"


def test_several_documents_of_a_text_are_told_apart() -> None:
    found, problems = documents.parse(f"{GOOD}---\n---\n{GOOD}---\n[1]\n", "f.yaml")
    assert [one.name for one in found] == ["good", "good"]
    assert [one.index for one in found] == [1, 3]
    assert "document 4 is not a mapping" in problems[0]


def test_json_is_read_as_well() -> None:
    found, problems = documents.parse(json.dumps(rest_api("good"), indent=2), "f.json")
    assert not problems
    assert found[0].body == rest_api("good")
    assert found[0].place_of("spec.operations[0].path") == "f.json:19"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Gateway\n", "unknown kind 'Gateway'; kinds are: RestApi"),
        ("a: 1\n", "has no kind; kinds are: RestApi"),
        ("openapi: 3.0.0\npaths: {}\n", "see `signalbox import openapi`"),
        ("kind: RestApi\nkind: RestApi\n", "f.yaml:2: not valid YAML or JSON: key 'kind' stands"),
        ("kind: RestApi\n  spec: {}\n", "f.yaml:2: not valid YAML or JSON"),
        ("kind: RestApi\n? [a]\n: b\n", "a key must be text"),
        ("kind: RestApi\nspec: &me {a: *me}\n", "cannot be said in JSON"),
        ("kind: RestApi\nspec: {a: .nan}\n", "cannot be said in JSON"),
        (f"kind: RestApi\nspec: {{a: {2**70}}}\n", "cannot be said in JSON"),
        ("kind: !!python/object:os.system x\n", "not valid YAML or JSON"),
        ("kind: \x00\n", "not valid YAML or JSON"),
    ],
)
def test_what_is_no_resource_says_so(text: str, said: str) -> None:
    [problem] = problems_of(text)
    assert said in problem


def test_dates_and_numbers_as_keys_are_text() -> None:
    document = rest_api("dated")
    document["metadata"]["annotations"] = {}
    text = yaml.safe_dump(document).replace(
        "annotations: {}", "annotations: {on: 2026-01-01, 200: b}"
    )
    found, problems = documents.parse(text, "f.yaml")
    assert not problems
    assert found[0].body["metadata"]["annotations"] == {"on": "2026-01-01", "200": "b"}


def test_a_template_is_left_to_the_gateway() -> None:
    upstream = {"main": {"url": '{{ env "BACKEND" }}'}}
    assert problems_of(yaml.safe_dump(rest_api("templated", upstream=upstream))) == []


def test_what_get_prints_can_be_applied() -> None:
    found, problems = documents.parse(
        yaml.safe_dump({**rest_api("good"), "status": {"revision": 3}}), "f.yaml"
    )
    assert not problems
    assert "status" not in found[0].body


def test_directories_are_read_sorted_and_below_but_not_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b.yaml", "a/z.yml", "a/c.json", ".git/x.yaml", "a/.y.yaml", "note.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(rest_api(file.stem)))
    assert [one.name for one in documents.load([str(tmp_path)])] == ["c", "z", "b"]


def test_nothing_is_taken_when_one_document_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(BROKEN)
    with pytest.raises(Refused) as caught:
        documents.load([str(tmp_path)])
    assert caught.value.message == "nothing was sent: 4 problems found"
    assert len(caught.value.details) == 4


def test_the_same_resource_twice_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text("# later\n" + GOOD)
    with pytest.raises(Refused) as caught:
        documents.load([str(tmp_path)])
    [detail] = caught.value.details
    assert detail == f"{tmp_path}/b.yaml:2: api/good was already given at {tmp_path}/a.yaml:1"


def test_an_empty_directory_is_not_everything_deleted(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no documents found"):
        documents.load([str(tmp_path)])


@pytest.mark.parametrize("name", ["missing.yaml", "latin.yaml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"kind: \xe9\n")
    with pytest.raises(Misused, match=name):
        documents.load([str(tmp_path / name)])


def test_standard_input_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert [one.source for one in documents.load(["-"])] == ["-"]


def test_an_annotation_is_added_to_a_copy() -> None:
    [document], _ = documents.parse(GOOD, "f.yaml")
    marked = document.annotated("a", "b")
    assert marked.body["metadata"]["annotations"] == {"a": "b"}
    assert "annotations" not in document.body["metadata"]
