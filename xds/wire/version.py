"""Is the Envoy binary the one whose API is on file?"""

import re
import subprocess
from pathlib import Path

from xds.wire.descriptors import FILE, VERSION
from xds.wire.errors import UnreadableEnvoy, WrongEnvoy
from xds.wire.extract import extract

_VERSION = re.compile(r"version: [0-9a-f]+/(\d+\.\d+\.\d+[^/\s]*)/")
_ANSWER_WITHIN_S = 20.0


def envoy_version(envoy: Path) -> str:
    """What `envoy --version` says, as in `1.40.0`; takes a tenth of a second.

    Raises UnreadableEnvoy when the file does not run or does not answer like Envoy.
    """
    try:
        answer = subprocess.run(  # noqa: S603 - the path is the launcher's own
            [str(envoy), "--version"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnreadableEnvoy(str(envoy), str(error)) from error
    found = _VERSION.search(answer.stdout)
    if found is None:
        raise UnreadableEnvoy(str(envoy), "it does not answer --version as Envoy does")
    return found.group(1)


def check_envoy(envoy: Path) -> None:
    """Refuse a binary of another version. Raises WrongEnvoy, UnreadableEnvoy."""
    found = envoy_version(envoy)
    if found != VERSION:
        raise WrongEnvoy(f"Envoy {found}", VERSION)


def check_api(envoy: Path) -> None:
    """Refuse a binary whose API differs from the one on file: a build with other extensions.

    Reads the whole binary (a second): for `doctor`, not for a start. Raises WrongEnvoy,
    UnreadableEnvoy.
    """
    try:
        binary = envoy.read_bytes()
    except OSError as error:
        raise UnreadableEnvoy(str(envoy), error.strerror or str(error)) from error
    if extract(binary, str(envoy)) != FILE.read_bytes():
        raise WrongEnvoy("a build of Envoy with another API", VERSION)
