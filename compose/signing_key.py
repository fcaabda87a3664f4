"""The key with which the gateway signs, when nobody has given it one: made once, then kept."""

import os

from compose.data_folder import DataFolder, write_private
from compose.errors import DataFolderUnusable
from policy_engine.system import SystemParameters


def with_signing_key(system: SystemParameters, folder: DataFolder) -> SystemParameters:
    """`system` with a key: its own, or the one in `folder`. Raises DataFolderUnusable.

    Processes that start together agree: the first to put its key there wins.
    """
    if system.backend_jwt_key.get_secret_value() or system.backend_jwt_key_path is not None:
        return system
    path = folder.root / f"backend-jwt-{system.backend_jwt_algorithm}.pem"
    if not path.exists():
        from policy_engine.identity.signing import new_key  # noqa: PLC0415 - slow, and needed once

        mine = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            write_private(mine, new_key(system.backend_jwt_algorithm))
            try:
                os.link(mine, path)
            except FileExistsError:
                pass
            finally:
                mine.unlink()
        except OSError as error:
            raise DataFolderUnusable(folder.root, f"{path}: {error.strerror}") from error
    return system.model_copy(update={"backend_jwt_key_path": path})
