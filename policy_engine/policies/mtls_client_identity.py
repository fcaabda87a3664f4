"""mtls-client-identity.

Source: RFC 5280 (certificates), RFC 2253 (how subjects are written),
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
"""

import re
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from policy_engine.errors import PolicyNotCompiled
from policy_engine.identity.claims import RBAC, any_of, denied, refuse_unless
from policy_engine.parameters.headers import APPLICATION_HEADER, header_mutation
from policy_engine.policy import Document, HttpFilter, Policy, Refusal, Scope, Version, typed
from policy_engine.shadow import watched

_MTLS = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config"
_FILTER_STATE = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_SUBJECT, _FINGERPRINT = "signalbox.client-subject", "signalbox.client-fingerprint"
_FORMATS = {
    _SUBJECT: "%DOWNSTREAM_PEER_SUBJECT%",
    _FINGERPRINT: "%DOWNSTREAM_PEER_FINGERPRINT_256%",
}
_IDENTITIES = {
    "subject": "%DOWNSTREAM_PEER_SUBJECT%",
    "dnsName": "%DOWNSTREAM_PEER_DNS_SAN%",
    "uri": "%DOWNSTREAM_PEER_URI_SAN%",
    "email": "%DOWNSTREAM_PEER_EMAIL_SAN%",
    "fingerprint": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
}
_FORWARDED = (
    "Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;"
    'Subject="%DOWNSTREAM_PEER_SUBJECT%";'
    'URI="%DOWNSTREAM_PEER_URI_SAN%";DNS="%DOWNSTREAM_PEER_DNS_SAN%"'
)


def _pattern(text: str) -> str:
    if "*" in text[1:-1] or text == "*" or (text.startswith("*") and text.endswith("*")):
        raise ValueError(f"{text!r}: one '*' may stand at the beginning or at the end")
    return text


def _fingerprint(value: object) -> object:
    return re.sub(r"[:\s]", "", value).lower() if isinstance(value, str) else value


Pattern = Annotated[
    str, Field(min_length=1, max_length=1024, pattern=r"^[ -~]+$"), AfterValidator(_pattern)
]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=500)]
Fingerprint = Annotated[str, BeforeValidator(_fingerprint), Field(pattern="^[0-9a-f]{64}$")]


class MtlsClientIdentity(Policy):
    """Lets only callers with a client certificate pass that the gateway's authorities have signed.

    Whoever runs the gateway names the authorities (`[policies] client_authorities_file`); the HTTPS
    listener then asks callers for a certificate, and ends connections with one that is not valid.
    Requests without one, all those over HTTP among them, are answered 401, others than the named
    ones 403. Without any name in the parameters every valid certificate will do. What a caller
    sends in `X-Forwarded-Client-Cert` is removed in any case.
    """

    name: ClassVar[str] = "mtls-client-identity"
    version: ClassVar[Version] = Version(1, 0, 0)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            denied("mtls-client-identity.certificate"),
            401,
            {"error": "Unauthorized", "message": "A valid client certificate is required"},
        ),
        Refusal(
            denied("mtls-client-identity.allowed"),
            403,
            {"error": "Forbidden", "message": "This client certificate is not allowed"},
        ),
    )
    example: ClassVar[Document] = {
        "dnsNames": ["orders.clients.example.com", "*.partners.example.com"],
        "subjects": ["CN=billing,O=Example"],
        "identity": "dnsName",
    }

    dns_names: Patterns = ()
    """DNS names of certificates that may pass; `*.example.com` for all below, at any depth."""

    uris: Patterns = ()
    """URIs of certificates that may pass, such as `spiffe://example.com/orders`; `*` at the end for
    all that begin so."""

    emails: Patterns = ()
    """Email addresses of certificates that may pass; `*@example.com` for all of a domain."""

    subjects: Patterns = ()
    """Subjects of certificates that may pass, as RFC 2253 writes them: the last part first, such as
    `CN=orders,O=Example`; `*` at the beginning or at the end for any."""

    fingerprints: Annotated[tuple[Fingerprint, ...], Field(max_length=500)] = ()
    """SHA-256 of certificates that may pass: hexadecimal, in any case, with or without colons."""

    identity: Literal["subject", "dnsName", "uri", "email", "fingerprint"] = "subject"
    """What the application on usage events is: that part of the certificate (several are joined by
    commas), or its fingerprint where it has none."""

    forward_certificate: bool = False
    """Whether the upstream gets fingerprint, subject, URIs and DNS names of the certificate in
    `X-Forwarded-Client-Cert`."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`rbac` twice, and `header_mutation`; subjects and fingerprints by filter state."""
        if not scope.system.client_authorities:
            raise PolicyNotCompiled(
                self.name,
                "the gateway asks nobody for a certificate: set client_authorities_file in "
                "[policies]",
            )
        name = scope.unique(self.name)
        certificate = _validated({"any_validated_client_certificate": True})
        made = [
            HttpFilter(
                f"{name}.certificate", refuse_unless(f"{self.name}.certificate", certificate)
            )
        ]
        needed = {_SUBJECT: self.subjects, _FINGERPRINT: self.fingerprints}
        states = [_state(key) for key, named in needed.items() if named]
        if states:
            config = typed(_FILTER_STATE, {"on_request_headers": states})
            made.append(HttpFilter(f"{name}.facts", config))
        allowed = list(self._allowed())
        if allowed:
            made.append(
                HttpFilter(
                    f"{name}.allowed", refuse_unless(f"{self.name}.allowed", any_of(allowed))
                )
            )
        made.append(HttpFilter(f"{name}.identity", header_mutation(self._headers())))
        return tuple(made)

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same rules, watched; the identity is told to nobody."""
        *looking, _ = self.filters(scope)
        return tuple(
            watched(self.name, one) if one.config["@type"].endswith(f"/{RBAC}") else one
            for one in looking
        )

    def _allowed(self) -> Iterable[Document]:
        for kind, names in (("DNS", self.dns_names), ("URI", self.uris), ("EMAIL", self.emails)):
            for one in names:
                matcher = _matcher(one, ignore_case=kind != "URI")
                yield _validated({"san_matcher": {"san_type": kind, "matcher": matcher}})
        for one in self.subjects:
            yield {"filter_state": {"key": _SUBJECT, "string_match": _matcher(one)}}
        for one in self.fingerprints:
            yield {"filter_state": {"key": _FINGERPRINT, "string_match": _matcher(one)}}

    def _headers(self) -> list[Document]:
        mutations = [
            _overwrite(APPLICATION_HEADER, _IDENTITIES["fingerprint"]),
            _overwrite(APPLICATION_HEADER, _IDENTITIES[self.identity]),
        ]
        if self.forward_certificate:
            mutations.append(_overwrite("x-forwarded-client-cert", _FORWARDED))
        return mutations


def _validated(config: Document) -> Document:
    """A principal; unlike `authenticated` it holds for nobody without a valid certificate."""
    name = "envoy.rbac.principals.mtls_authenticated"
    return {"custom": {"name": name, "typed_config": typed(_MTLS, config)}}


def _matcher(pattern: str, *, ignore_case: bool = False) -> Document:
    if pattern.startswith("*"):
        matcher: Document = {"suffix": pattern[1:]}
    elif pattern.endswith("*"):
        matcher = {"prefix": pattern[:-1]}
    else:
        matcher = {"exact": pattern}
    return {**matcher, "ignore_case": True} if ignore_case else matcher


def _state(key: str) -> Document:
    return {
        "object_key": key,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": _FORMATS[key]}},
    }


def _overwrite(header: str, value: str) -> Document:
    """The mutation that leaves one header of that value; none for an empty value."""
    return {
        "append": {
            "header": {"key": header, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
