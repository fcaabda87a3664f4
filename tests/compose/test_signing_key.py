import asyncio
import sys
from pathlib import Path

import pytest

from compose.data_folder import DataFolder
from compose.errors import DataFolderUnusable
from compose.signing_key import with_signing_key
from policy_engine.identity.signing import jwks, new_key
from policy_engine.system import SystemParameters

MAKE = """\
import sys
from pathlib import Path
from compose.data_folder import DataFolder
from compose.signing_key import with_signing_key
from policy_engine.identity.signing import jwks
from policy_engine.system import SystemParameters
system = SystemParameters(backend_jwt_algorithm="ES256")
print(jwks(with_signing_key(system, DataFolder(Path(sys.argv[1]))))["keys"][0]["kid"])
"""


def test_a_key_is_made_once_and_kept_for_this_user_only(tmp_path: Path) -> None:
    first = with_signing_key(SystemParameters(), DataFolder(tmp_path))
    again = with_signing_key(SystemParameters(), DataFolder(tmp_path))
    assert jwks(first) == jwks(again)
    (kept,) = tmp_path.iterdir()
    assert kept.name == "backend-jwt-RS256.pem"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_another_algorithm_has_another_key(tmp_path: Path) -> None:
    for algorithm in ("RS256", "ES256"):
        system = SystemParameters(backend_jwt_algorithm=algorithm)
        (key,) = jwks(with_signing_key(system, DataFolder(tmp_path)))["keys"]
        assert key["alg"] == algorithm


def test_a_key_that_is_given_stays(tmp_path: Path) -> None:
    system = SystemParameters(backend_jwt_key=new_key("RS256"))
    assert with_signing_key(system, DataFolder(tmp_path)) is system
    assert not list(tmp_path.iterdir())


async def test_processes_that_start_together_have_one_key(tmp_path: Path) -> None:
    async def kid() -> bytes:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MAKE, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        return (await started.communicate())[0]

    found = set(await asyncio.gather(*(kid() for _ in range(4))))
    assert len(found) == 1
    assert found != {b""}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFolderUnusable):
        with_signing_key(SystemParameters(), DataFolder(tmp_path / "missing"))
