"""Secrets that a router would ask the configuration service for, in a static configuration."""

from collections.abc import Mapping
from typing import Any

import certifi

Document = dict[str, Any]


def given_secrets(config: Document, secrets: Mapping[str, Document]) -> None:
    """Put `secrets` and the authorities of upstreams into bootstrap `config`, which names them."""
    authorities = {"trusted_ca": {"filename": certifi.where()}}
    static = [*secrets.values(), {"name": "upstream-ca", "validation_context": authorities}]
    config["static_resources"]["secrets"] = static
    _point(config, {one["name"] for one in static})


def _point(document: Any, names: set[str]) -> None:
    match document:
        case {"name": str(name), "sds_config": _} if name in names:
            del document["sds_config"]
        case dict():
            for value in document.values():
                _point(value, names)
        case list():
            for value in document:
                _point(value, names)
