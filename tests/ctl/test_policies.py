"""`signalbox policies`: the list, broken ones, and a new one that passes its own test."""

import subprocess
import sys
from pathlib import Path

import pytest

from ctl import scaffold
from ctl.errors import Misused, Refused
from policy_engine.catalogue import Catalogue
from policy_engine.documentation import parameters
from policy_engine.loading.watched import Kept, WatchedFolder, add
from tests.ctl import cli


@pytest.mark.parametrize("kind", ["python", "native"])
async def test_a_new_policy_passes_its_own_test_and_loads(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "own"
    result = await cli.run(
        *("policies", "new", "word-filter", f"--{kind}", "--folder", str(folder)),
        env=cli.environment(tmp_path),
    )
    assert result.code == 0, result.err
    file, test = folder / "word_filter.py", folder / "test_word_filter.py"
    assert result.out.splitlines() == [str(file), str(test)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    catalogue = Catalogue(())
    add(catalogue, WatchedFolder(folder, Kept(tmp_path / "kept"), import_timeout_s=60))
    assert catalogue.broken == ()
    (one,) = catalogue.listing()
    assert (one.name, one.runs) == ("word-filter", "python" if kind == "python" else "envoy")
    assert one.shadow
    assert [known.path for known in parameters(one.parameters) if not known.description] == []
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length",
        "100",
        str(folder),
    ]
    assert subprocess.run(ruff, capture_output=True, check=False).returncode == 0


BAD_NAMES = ["Word", "word_filter", "-a", "a-", "a--b", "", "a.b", "../a", "a" * 65, "1a"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "class", "test-a", "conftest"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misused, match="is no name of a policy"):
        scaffold.create(name, "python", tmp_path, ())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["a_b.py", "test_a_b.py", "a_b/__init__.py"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(Refused, match="is there already; nothing was written"):
        scaffold.create("a-b", "python", tmp_path, ())
    assert path.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_name_of_an_included_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="take its place"):
        scaffold.create("cors", "native", tmp_path, {"cors"})


async def test_policies_of_the_data_folder_are_listed_and_broken_ones_told(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir(mode=0o700)
    scaffold.create("mine-own", "python", folder, ())
    (folder / "gone_wrong.py").write_text("import nothing_like_it")
    env = cli.environment(tmp_path, SIGNALBOX_DATA=str(tmp_path))
    listed = await cli.run("policies", env=env)
    assert listed.code == 0
    (line,) = [one for one in listed.out.splitlines() if one.startswith("mine-own")]
    assert line.split()[1:3] == ["1.0.0", "Python"]
    assert "not loaded: gone-wrong" in listed.err
    assert "No module named 'nothing_like_it'" in listed.err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["policies"]  # nothing is left behind

    shown = await cli.run("policies", "mine-own", env=env)
    assert "runs in Python: its hooks are Python" in shown.out
    wrong = await cli.run("policies", "show", "gone-wrong", env=env)
    assert wrong.code == 4
    assert "Traceback" in wrong.err
