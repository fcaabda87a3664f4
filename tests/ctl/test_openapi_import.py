"""OpenAPI documents become RestApis, and what cannot be expressed is told."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus.resources.rest_api import RestApi
from ctl import openapi_import
from ctl.errors import Refused
from ctl.output import as_yaml
from policy_engine.catalogue import load

FIXTURES = Path(__file__).parents[1] / "fixtures"
DOCUMENTS = sorted(
    path for path in FIXTURES.iterdir() if path.suffix in (".yaml", ".json") and path.is_file()
)


def document(paths: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shop", "version": "v2.1"},
        "paths": {"/x": {"get": {}}} if paths is None else paths,
        **parts,
    }


def imported(paths: dict[str, Any] | None = None, **parts: Any) -> openapi_import.Imported:
    return openapi_import.convert(document(paths, **parts), upstream="http://up.example")


def operations(found: openapi_import.Imported) -> list[str]:
    return [f"{one['method']} {one['path']}" for one in found.resource["spec"]["operations"]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_public_documents(path: Path, golden: Callable[[Path, object], None]) -> None:
    source = openapi_import.parse(path.read_text(), path.name)
    found = openapi_import.convert(source, upstream="https://upstream.example/base")
    RestApi.model_validate(found.resource)
    assert not found.left_out
    remarks = "".join(f"# {remark}\n" for remark in found.remarks)
    name = f"{path.stem}.restapi.yaml"
    golden(Path(__file__).parent / "golden" / name, remarks + as_yaml(found.resource))


def test_a_document_that_needs_no_change_has_no_remarks() -> None:
    found = imported()
    assert found.remarks == ()
    assert found.resource["metadata"]["name"] == "shop-v2.1"
    assert found.resource["spec"]["context"] == "/shop/$version"


@pytest.mark.parametrize(
    ("written", "version"),
    [
        ("1.0.27-SNAPSHOT", "v1.0"),
        ("3", "v3.0"),
        ("v1", "v1.0"),
        ("V2.7.1", "v2.7"),
        ("2023-10-01", "v2023.0"),
        ("beta", "v1.0"),
        ("", "v1.0"),
    ],
)
def test_a_version_is_fitted_and_told(written: str, version: str) -> None:
    found = imported(info={"title": "Shop", "version": written})
    assert found.resource["spec"]["version"] == version
    assert f"the document says {written!r}" in found.remarks[0]


@pytest.mark.parametrize(
    ("title", "display_name", "name"),
    [
        ("Pets & Co. (beta)", "Pets Co. beta", "pets-co-beta-v2.1"),
        ("Überprüfung", "Uberprufung", "uberprufung-v2.1"),
        ("", "API", "api-v2.1"),
        ("x" * 120, "x" * 100, "x" * 120 + "-v2.1"),
    ],
)
def test_a_title_is_fitted_and_told(title: str, display_name: str, name: str) -> None:
    found = imported(info={"title": title, "version": "v2.1"})
    assert found.resource["spec"]["displayName"] == display_name
    assert found.resource["metadata"]["name"] == name
    assert len(found.remarks) == 1


def test_a_number_in_yaml_stays_as_written() -> None:
    text = "openapi: 3.0.0\ninfo: {title: Shop, version: 1.10}\npaths: {/x: {get: {}}}\n"
    found = openapi_import.convert(openapi_import.parse(text, "f"), upstream="http://u.example")
    assert found.resource["spec"]["version"] == "v1.10"


def test_given_names_replace_those_of_the_document() -> None:
    found = openapi_import.convert(
        document(), upstream="http://u.example", name="n", context="/c", version="v9"
    )
    assert found.resource["metadata"]["name"] == "n"
    assert found.resource["spec"]["context"] == "/c"
    assert found.resource["spec"]["version"] == "v9"
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/files/{name}.json", "a path parameter must fill a whole segment"),
        ("/range/{from}-{to}", "a path parameter must fill a whole segment"),
        ("/x?action=do", "'?'"),
        ("/x#part", "'#'"),
        ("no-slash", "must start with '/'"),
        ("/a/{id}/b/{id}", "twice"),
        ("/a/*", "'*' would match more than it says"),
    ],
)
def test_an_operation_that_cannot_be_expressed_is_told(path: str, reason: str) -> None:
    found = imported({"/ok": {"get": {}}, path: {"get": {}, "post": {}}})
    assert operations(found) == ["GET /ok"]
    [left_out] = found.left_out
    assert left_out.startswith(f"GET, POST {path}: ")
    assert reason in left_out


def test_methods_that_a_rest_api_does_not_have_are_told() -> None:
    found = imported({"/x": {"get": {}, "trace": {}, "parameters": [], "x-note": 1}})
    assert operations(found) == ["GET /x"]
    assert found.left_out == ("TRACE /x: a RestApi has no method TRACE",)


def test_paths_that_match_the_same_requests_are_kept_once() -> None:
    found = imported(
        {
            "/a/{x}": {"get": {}},
            "/a/{y}": {"get": {}, "put": {}},
            "/b": {"get": {}},
            "/b/": {"get": {}},
        }
    )
    assert operations(found) == ["GET /a/{x}", "PUT /a/{y}", "GET /b"]
    assert found.left_out == (
        "GET /a/{y}: /a/{x} already matches the same paths",
        "GET /b/: /b already matches the same paths",
    )


def test_references_to_path_items_are_followed() -> None:
    items = {"pathItems": {"a/b": {"get": {}}}}
    found = imported(
        {
            "/x": {"$ref": "#/components/pathItems/a~1b", "post": {}},
            "/y": {"$ref": "other.yaml#/paths/y"},
            "/z": {"$ref": "#/components/pathItems/none"},
            "/self": {"$ref": "#/paths/~1self"},
        },
        components=items,
    )
    assert operations(found) == ["GET /x", "POST /x"]
    assert [text.split(":")[0] for text in found.left_out] == [
        "all of /y",
        "all of /z",
        "all of /self",
    ]


def test_a_document_without_operations_is_refused() -> None:
    with pytest.raises(Refused, match="no operation") as caught:
        imported({"/files/{name}.json": {"get": {}}})
    assert len(caught.value.details) == 1


def test_the_base_path_of_the_server_is_told_when_the_upstream_has_none() -> None:
    servers = [{"url": "https://{host}/api/v3", "variables": {"host": {"default": "a.example"}}}]
    [remark] = imported(servers=servers).remarks
    assert "--upstream http://up.example/api/v3" in remark
    found = openapi_import.convert(document(servers=servers), upstream=None)
    assert found.resource["spec"]["upstream"]["main"]["url"] == "https://a.example/api/v3"


def test_without_a_server_the_upstream_must_be_given() -> None:
    with pytest.raises(Refused, match="--upstream"):
        openapi_import.convert(document(servers=[{"url": "/v1"}]))


def test_a_bad_upstream_is_named() -> None:
    with pytest.raises(Refused) as caught:
        openapi_import.convert(document(), upstream="ftp://x")
    assert "spec.upstream.main.url" in caught.value.details[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "f:1: not valid JSON"),
        ("a: [", "not valid YAML"),
        ("- a", "not a mapping"),
        ("kind: RestApi", "neither openapi nor swagger"),
        ("openapi: 4.0.0", "version '4.0.0'"),
        ("swagger: '1.2'", "version '1.2'"),
        ('{"swagger": 1.2}', "version '1.2'"),
    ],
)
def test_what_is_no_openapi_document_is_refused(text: str, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        openapi_import.parse(text, "f")


def test_requests_can_be_validated_against_the_document_as_it_is_written() -> None:
    text = (FIXTURES / "petstore.yaml").read_text()
    found = openapi_import.convert(
        openapi_import.parse(text, "petstore.yaml"), upstream="http://up.example", validated=text
    )
    (ref,) = RestApi.model_validate(found.resource).spec.policies
    policy = load(()).parse(ref)
    assert (policy.name, policy.masked()["document"]) == ("openapi-validation", text)
    with pytest.raises(Refused, match="not Swagger"):
        openapi_import.convert({"swagger": "2.0"}, validated="x")
