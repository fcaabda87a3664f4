"""Resources that the tests of the command apply."""

from typing import Any

API_VERSION = "gateway.api-platform.wso2.com/v1"


def rest_api(name: str, **spec: Any) -> dict[str, Any]:
    """A small API of this name; `spec` replaces parts of its spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": "RestApi",
        "metadata": {"name": name},
        "spec": {
            "displayName": name,
            "version": "v1.0",
            "context": f"/{name}",
            "upstream": {"main": {"url": "http://127.0.0.1:1"}},
            "operations": [{"method": "GET", "path": "/x"}],
            **spec,
        },
    }
