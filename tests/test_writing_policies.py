"""The guide to writing policies: its code blocks are files, and its tests pass."""

import re
import subprocess
import sys
from pathlib import Path

from bus.resources.rest_api import PolicyRef
from policy_engine.catalogue import Catalogue
from policy_engine.loading.watched import Kept, WatchedFolder, add

GUIDE = Path(__file__).parents[1] / "docs" / "writing-policies.md"
_BLOCK = re.compile(r"^```python file=(\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_block_of_python_is_a_file_and_its_tests_pass(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    blocks = dict(_BLOCK.findall(text))
    assert len(blocks) == text.count("```python") >= 4
    for name, code in blocks.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[45] passed", done.stdout)
    catalogue = Catalogue(())
    add(catalogue, WatchedFolder(tmp_path, Kept(tmp_path / ".kept"), import_timeout_s=60))
    assert catalogue.broken == ()
    assert [one.name for one in catalogue] == ["greeting", "house-style"]
    for one in catalogue:
        assert catalogue.parse(PolicyRef(name=one.name, params=one.example))
