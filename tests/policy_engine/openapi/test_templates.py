import pytest

from policy_engine.openapi.templates import Templates

TEMPLATES = Templates(
    {
        one: one
        for one in (
            "/",
            "/pets",
            "/pets/mine",
            "/pets/{id}",
            "/pets/{id}/toys/{toy}",
            "/pets/mine/food",
            "/files/{name}.{type}",
            "/files/{name}.json",
            "/files/{name}",
        )
    }
)


@pytest.mark.parametrize(
    ("path", "template", "values"),
    [
        ("/", "/", {}),
        ("/pets", "/pets", {}),
        ("/pets/", "/pets", {}),
        ("/pets/mine", "/pets/mine", {}),
        ("/pets/7", "/pets/{id}", {"id": "7"}),
        ("/pets/a%2Fb", "/pets/{id}", {"id": "a/b"}),
        ("/pets/mine/toys/3", "/pets/{id}/toys/{toy}", {"id": "mine", "toy": "3"}),
        ("/files/a.txt", "/files/{name}.{type}", {"name": "a", "type": "txt"}),
        ("/files/a", "/files/{name}", {"name": "a"}),
    ],
)
def test_a_path_is_meant_by_the_most_concrete_template(
    path: str, template: str, values: dict[str, str]
) -> None:
    assert TEMPLATES.find(path) == (template, values)


@pytest.mark.parametrize("path", ["/nothing", "/pets/7/toys", "/pets//", "/pets/7/toys/3/4"])
def test_other_paths_are_meant_by_none(path: str) -> None:
    assert TEMPLATES.find(path) is None


@pytest.mark.parametrize("paths", [["pets"], ["/a/{b}", "/a/{c}"], ["/a", "/a/"]])
def test_templates_that_cannot_be_told_apart_are_refused(paths: list[str]) -> None:
    with pytest.raises(ValueError, match="path"):
        Templates(dict.fromkeys(paths, ""))
