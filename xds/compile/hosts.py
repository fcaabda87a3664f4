"""On which hosts an API is served, and by which upstream."""

from collections.abc import Iterator

from bus.resources.rest_api import GATEWAY_DEFAULT_VHOST, RestApiSpec
from bus.resources.upstream import Upstream
from xds.settings import XdsSettings


def served_on(
    spec: RestApiSpec, settings: XdsSettings
) -> Iterator[tuple[tuple[str, ...], Upstream]]:
    """The hosts of the main and of the sandbox upstream."""
    main = spec.vhosts.main if spec.vhosts is not None else GATEWAY_DEFAULT_VHOST
    yield _hosts(main, settings.gateway_domains), spec.upstream.main
    if spec.upstream.sandbox is not None:
        sandbox = spec.vhosts.sandbox if spec.vhosts is not None else None
        hosts = _hosts(sandbox or GATEWAY_DEFAULT_VHOST, settings.gateway_sandbox_domains)
        yield hosts, spec.upstream.sandbox


def _hosts(declared: str, default: tuple[str, ...]) -> tuple[str, ...]:
    hosts: dict[str, None] = {}
    for host in declared.split(";"):
        name = host.strip().lower()
        names = default if name == GATEWAY_DEFAULT_VHOST else (_without_port(name),)
        hosts |= dict.fromkeys(names)
    return tuple(hosts)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
