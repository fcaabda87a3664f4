"""What every test may ask for: `--accept`, and comparison with a golden file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# how long examples take says how busy the machine is
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--accept",
        action="store_true",
        help="write what the tests got into the golden files, for a human to read the diff",
    )


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--accept"))


@pytest.fixture
def golden(accept: bool) -> Callable[[Path, object], None]:
    """Compare with a golden file: text as it is, anything else as indented JSON."""

    def compare(path: Path, actual: object) -> None:
        text = actual if isinstance(actual, str) else json.dumps(actual, indent=2) + "\n"
        if accept:
            path.write_text(text)
        assert path.exists(), f"{path.name} is missing: run pytest --accept and read the diff"
        assert text == path.read_text()

    return compare
