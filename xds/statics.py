"""Resources that no API owns: listeners and secrets."""

from typing import Any

from xds.access_log import access_log_config
from xds.ads.protocol import Resource
from xds.bootstrap import ACCESS_LOG_CLUSTER
from xds.certificates import Certificate
from xds.listener import (
    LISTENER,
    SECRET,
    authorities_secret,
    client_authorities_secret,
    gateway_secret,
    listeners,
)
from xds.settings import XdsSettings
from xds.wire.messages import digest, encode

Document = dict[str, Any]

LISTENER_URL = f"type.googleapis.com/{LISTENER}"
SECRET_URL = f"type.googleapis.com/{SECRET}"


class Statics:
    """Listeners and secrets of one gateway."""

    def __init__(
        self,
        settings: XdsSettings,
        *,
        certificate: Certificate | None,
        authorities: str,
        local_reply: Document,
        access_log: bool,
        client_authorities: str = "",
        client_revocations: str = "",
    ) -> None:
        self._settings = settings
        self._certificate = certificate
        self._authorities = authorities
        self._local_reply = local_reply
        self._clients: Document | None = None
        if client_authorities:
            self._clients = client_authorities_secret(client_authorities, client_revocations)
        self._access_log = None
        if access_log:
            self._access_log = access_log_config(
                ACCESS_LOG_CLUSTER, settings.usage_request_headers, settings.usage_response_headers
            )

    def dress(self, local_reply: Document) -> bool:
        """Refusals look so from now on; whether that is news, and listeners change."""
        changed = local_reply != self._local_reply
        self._local_reply = local_reply
        return changed

    def resources(self, root_hosts: str | None) -> list[Resource]:
        """All of them; `root_hosts` as in `xds.listener.listeners`."""
        made = [_resource(SECRET_URL, SECRET, authorities_secret(self._authorities))]
        if self._certificate is not None:
            made.append(_resource(SECRET_URL, SECRET, gateway_secret(self._certificate)))
        if self._clients is not None:
            made.append(_resource(SECRET_URL, SECRET, self._clients))
        made += [
            _resource(LISTENER_URL, LISTENER, document)
            for document in listeners(
                self._settings,
                access_log=self._access_log,
                local_reply=self._local_reply,
                root_hosts=root_hosts,
                ask_for_certificates=self._clients is not None,
            )
        ]
        return made


def _resource(type_url: str, message: str, document: Document) -> Resource:
    body = encode(message, document)
    return Resource(type_url, str(document["name"]), digest(body), body)
