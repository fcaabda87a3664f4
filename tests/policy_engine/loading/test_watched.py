"""A folder of policies: added, changed, broken and removed files, in real processes."""

import asyncio
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.resources.rest_api import PolicyRef
from policy_engine.catalogue import Catalogue
from policy_engine.chain import hop_of
from policy_engine.documentation import parameters
from policy_engine.errors import UnknownPolicy
from policy_engine.hop import HopPolicy
from policy_engine.loading.watched import Kept, WatchedFolder, add, keep_current
from policy_engine.policy import Scope

TAG = textwrap.dedent('''
    from policy_engine.hooks import PythonPolicy
    from policy_engine.policy import Version

    class Tag(PythonPolicy):
        """Tags."""
        name = "tag"
        version = Version(1, 0, 0)
        example = {"word": "x"}
        word: str
        """The word."""

        def on_request_headers(self, exchange):
            exchange.request.headers.set("x-tag", "ONE")
''')
GOOD = TAG.replace("tag", "other").replace("Tag", "Other")


def write(place: Path, text: str) -> None:
    """As editors do: whole, by renaming."""
    new = place.with_name(f".{place.name}")
    new.write_text(text)
    new.replace(place)


def watched(tmp_path: Path, import_timeout_s: float = 60) -> WatchedFolder:
    folder = tmp_path / "policies"
    folder.mkdir(mode=0o755, exist_ok=True)
    return WatchedFolder(
        folder, Kept(tmp_path / "kept"), import_timeout_s=import_timeout_s, poll_s=0.05
    )


def made(tmp_path: Path) -> tuple[Catalogue, WatchedFolder]:
    catalogue, folder = Catalogue(()), watched(tmp_path)
    add(catalogue, folder)
    return catalogue, folder


def hop_policy(catalogue: Catalogue, name: str = "tag") -> HopPolicy:
    scope = Scope("api", "orders", "Orders", "v1", "/")
    attached = catalogue.attach(PolicyRef(name=name, params={"word": "x"}))
    return hop_of([attached], scope).policies[0]


@asynccontextmanager
async def following(catalogue: Catalogue, folder: WatchedFolder) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keep_current(catalogue, folder))
        yield
        task.cancel()


async def changed(catalogue: Catalogue) -> frozenset[str]:
    async with asyncio.timeout(60):
        return await anext(catalogue.changes())


def test_a_file_is_a_policy_with_its_docstrings_and_the_digest_of_its_code(tmp_path: Path) -> None:
    write(watched(tmp_path).folder / "tag.py", TAG)
    catalogue, _ = made(tmp_path)
    (listing,) = catalogue.listing()
    assert (listing.name, listing.description) == ("tag", "Tags.")
    assert [one.description for one in parameters(listing.parameters)] == ["The word."]
    assert len(hop_policy(catalogue).source) == 32
    assert catalogue.broken == ()


def test_a_package_is_one_source_with_its_modules_and_data(tmp_path: Path) -> None:
    package = watched(tmp_path).folder / "tagging"
    package.mkdir()
    write(package / "words.txt", "hello")
    write(package / "rule.py", TAG.replace('"ONE"', "TEXT") + "\nfrom .words import TEXT\n")
    write(package / "words.py", "import pkgutil\nTEXT = pkgutil.get_data(__package__, 'words.txt')")
    write(package / "__init__.py", "from .rule import Tag\n__all__ = ['Tag']")
    catalogue, folder = made(tmp_path)
    assert catalogue.broken == ()
    first = hop_policy(catalogue).source
    write(package / "words.txt", "goodbye")
    contents = folder.read()
    assert contents.policies[0].source != first


def test_tests_hidden_and_private_files_are_no_policies(tmp_path: Path) -> None:
    folder = watched(tmp_path).folder
    for name in ("test_tag.py", "conftest.py", "_part.py", ".hidden.py", "a-b.py", "notes.txt"):
        write(folder / name, "raise RuntimeError")
    catalogue, _ = made(tmp_path)
    assert (list(catalogue), catalogue.broken) == ([], ())


async def test_added_changed_and_removed_files_take_effect_and_are_told(tmp_path: Path) -> None:
    catalogue, folder = made(tmp_path)
    async with following(catalogue, folder):
        waiting = asyncio.ensure_future(changed(catalogue))
        await asyncio.sleep(0)
        write(folder.folder / "tag.py", TAG)
        assert await waiting == {"tag"}
        first = hop_policy(catalogue)

        waiting = asyncio.ensure_future(changed(catalogue))
        await asyncio.sleep(0)
        write(folder.folder / "tag.py", TAG.replace("ONE", "TWO"))
        assert await waiting == {"tag"}
        second = hop_policy(catalogue)
        assert first.source != second.source
        for one in (first, second):  # both: routers change over one after the other
            assert catalogue.remake(one).source == one.source

        waiting = asyncio.ensure_future(changed(catalogue))
        await asyncio.sleep(0)
        (folder.folder / "tag.py").unlink()
        assert await waiting == {"tag"}
    with pytest.raises(UnknownPolicy, match="its file is gone"):
        catalogue.parse(PolicyRef(name="tag", params={"word": "x"}))
    assert hop_policy(catalogue) == second  # for APIs that have it already
    assert "gone" in catalogue.troubles["tag"]


def test_a_broken_file_keeps_its_last_good_version_over_restarts_and_tells_why(
    tmp_path: Path,
) -> None:
    write(watched(tmp_path).folder / "tag.py", TAG)
    write(watched(tmp_path).folder / "other.py", GOOD)
    catalogue, folder = made(tmp_path)
    before = hop_policy(catalogue)
    write(folder.folder / "tag.py", TAG + "\nimport nothing_of_that_name\n")
    add(catalogue, folder)
    again, _ = made(tmp_path)  # as after a restart
    for one in (catalogue, again):
        assert hop_policy(one) == before
        assert one.remake(before).source == before.source
        (broken,) = one.broken
        assert (broken.name, broken.policies, broken.serving) == ("tag", ("tag",), True)
        assert "No module named 'nothing_of_that_name'" in broken.reason
        assert "Traceback" in one.troubles["tag"]
        assert "last good version goes on" in one.troubles["tag"]
        assert "other" not in one.troubles
    write(folder.folder / "tag.py", TAG)
    add(catalogue, folder)
    assert (catalogue.broken, catalogue.troubles) == ((), {})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def broken(:", "SyntaxError"),
        ("\0", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(7)", "ends the process (exit status 7)"),
        ("import os; os.kill(os.getpid(), 11)", "ends the process (signal 11)"),
        ("import os; os.write(1, b'junk'); x = 1", "holds no policy"),
        ("x = 1", "holds no policy"),
        ("x = bytearray(2 << 30)", "MemoryError"),
        (TAG.replace('{"word": "x"}', "{}"), "ValidationError"),
        ("while True: pass", "takes longer than 2 s"),
    ],
)
def test_whatever_a_file_does_when_it_is_imported_the_others_work(
    tmp_path: Path, code: str, reason: str
) -> None:
    hangs = "while" in code
    folder = watched(tmp_path, 2 if hangs else 60)
    write(folder.folder / "tag.py", code)
    write(folder.folder / "other.py", GOOD)
    write(folder.folder / "zebra.py", TAG.replace("tag", "zebra"))
    catalogue = Catalogue(())
    add(catalogue, folder)
    (broken,) = catalogue.broken
    assert broken.name == "tag"
    assert reason in broken.reason
    assert broken.source == str(folder.folder / "tag.py")
    assert [one.name for one in catalogue] == ["other", "zebra"]
    with pytest.raises(UnknownPolicy, match="does not load"):
        catalogue.parse(PolicyRef(name="tag"))


def test_two_files_with_the_same_policy_are_told_apart_by_name(tmp_path: Path) -> None:
    write(watched(tmp_path).folder / "a.py", TAG)
    write(watched(tmp_path).folder / "b.py", TAG)
    catalogue, _ = made(tmp_path)
    (broken,) = catalogue.broken
    assert broken.reason.startswith("policy tag 1.0.0 is already in")
    assert broken.source.endswith("b.py")


@pytest.mark.parametrize("open_to_all", ["policies", "policies/tag.py", "policies/inside"])
def test_code_that_everybody_may_change_is_not_run(tmp_path: Path, open_to_all: str) -> None:
    folder = watched(tmp_path)
    write(folder.folder / "tag.py", TAG)
    (folder.folder / "inside").mkdir()
    write(folder.folder / "inside" / "__init__.py", GOOD)
    place = tmp_path / open_to_all
    place.chmod(place.stat().st_mode | 0o002)
    catalogue = Catalogue(())
    add(catalogue, folder)
    (broken,) = catalogue.broken
    assert "everybody may write to it" in broken.reason
    missing = {"policies": {"tag", "other"}, "policies/tag.py": {"tag"}}
    left = {"tag", "other"} - missing.get(open_to_all, {"other"})
    assert {one.name for one in catalogue} == left


def test_a_kept_source_that_was_tampered_with_is_not_loaded(tmp_path: Path) -> None:
    write(watched(tmp_path).folder / "tag.py", TAG)
    catalogue, folder = made(tmp_path)
    one = hop_policy(catalogue)
    kept = folder.kept.folder / f"{one.source}.json"
    kept.write_text(kept.read_text().replace('"tag"', '"tax"'))
    fresh = Catalogue(())
    fresh.sources = watched(tmp_path)
    with pytest.raises(UnknownPolicy, match="is not here"):
        fresh.remake(one)


def test_what_is_kept_is_not_loaded_from_a_folder_that_is_open_to_all(tmp_path: Path) -> None:
    write(watched(tmp_path).folder / "tag.py", TAG)
    catalogue, folder = made(tmp_path)
    one = hop_policy(catalogue)
    folder.kept.folder.chmod(0o777)
    fresh = Catalogue(())
    fresh.sources = watched(tmp_path)
    with pytest.raises(UnknownPolicy, match="is not here"):
        fresh.remake(one)
    assert Kept(folder.kept.folder).current() == {}


def test_a_worker_that_never_watched_finds_the_code_of_a_hop(tmp_path: Path) -> None:
    write(watched(tmp_path).folder / "tag.py", TAG)
    catalogue, _ = made(tmp_path)
    one = hop_policy(catalogue)
    worker = Catalogue(())
    worker.sources = WatchedFolder(tmp_path / "nothing", Kept(tmp_path / "kept"))
    assert worker.remake(one).name == "tag"


def test_old_versions_are_forgotten_in_the_end(tmp_path: Path) -> None:
    folder = watched(tmp_path)
    for number in range(12):
        write(folder.folder / "tag.py", TAG.replace("ONE", str(number)))
        folder.read()
    assert len(list(folder.kept.folder.glob("[0-9a-f]*.json"))) <= 10
    assert len(folder._loaded) <= 9
