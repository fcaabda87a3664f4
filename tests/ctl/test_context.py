"""Which gateway a command talks to, and as whom."""

import json
from pathlib import Path

import pytest

from ctl.context import connection
from ctl.errors import Misused


@pytest.fixture
def data(tmp_path: Path) -> str:
    known = {"url": "http://127.0.0.1:7001", "user": "root", "password": "secret"}
    (tmp_path / "client.json").write_text(json.dumps(known))
    return str(tmp_path)


def test_the_data_folder_says_where_and_as_whom(data: str) -> None:
    found = connection(data=data)
    assert (found.url, found.user, found.password) == ("http://127.0.0.1:7001", "root", "secret")


def test_without_anything_the_default_address_is_meant(tmp_path: Path) -> None:
    found = connection(data=str(tmp_path / "none"))
    assert (found.url, found.user, found.password) == ("http://127.0.0.1:9090", "", "")


def test_flags_come_first(data: str) -> None:
    found = connection("http://127.0.0.1:7001/", "other", "word", data)
    assert (found.url, found.user, found.password) == ("http://127.0.0.1:7001", "other", "word")


def test_a_known_password_is_not_sent_to_another_address(data: str) -> None:
    found = connection("http://elsewhere.example:9090", data=data)
    assert (found.user, found.password) == ("", "")


def test_a_known_password_is_not_sent_for_another_user(data: str) -> None:
    found = connection(user="other", data=data)
    assert (found.user, found.password) == ("other", "")


def test_a_password_alone_is_the_administrators(tmp_path: Path) -> None:
    assert connection(password="p", data=str(tmp_path)).user == "admin"


def test_a_password_is_not_printed(data: str) -> None:
    assert "secret" not in repr(connection(data=data))


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_a_broken_client_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "client.json").write_text(content)
    with pytest.raises(Misused, match=r"client\.json"):
        connection(data=str(tmp_path))


@pytest.mark.parametrize(
    "url", ["localhost:9090", "http://", "http://[::1", "http://h:x", "ftp://h"]
)
def test_an_address_is_an_http_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misused, match="not an http or https URL"):
        connection(url, data=str(tmp_path))
