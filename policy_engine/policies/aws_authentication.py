"""aws-authentication.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from policy_engine.headers import header_mutation
from policy_engine.policy import (
    Connections,
    Document,
    HttpFilter,
    Policy,
    Purpose,
    Scope,
    Version,
    typed,
)

_SIGNING = "envoy.extensions.filters.http.aws_request_signing.v3.AwsRequestSigning"
_BUFFER = "envoy.extensions.filters.http.buffer.v3.Buffer"
_SIGNED = (
    {"exact": "content-type", "ignore_case": True},
    {"exact": "content-md5", "ignore_case": True},
    {"prefix": "x-amz-", "ignore_case": True},
)
"""Beside `host`; what a proxy in between may change is not signed."""

_CLEARED = tuple(
    {"remove": name}
    for name in ("authorization", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token")
)


def _plain(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return secret


Key = Annotated[str, Field(min_length=3, max_length=128, pattern=r"^[A-Za-z0-9_/+=-]+$")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_plain)]


class AwsAuthentication(Policy):
    """Signs requests to the upstream with AWS Signature Version 4.

    The request is signed as the upstream gets it, after every other policy, and again for each
    retry. What the caller sent in `Authorization` and the headers of the signature is replaced.
    Signed are `host`, `content-type`, `content-md5`, `x-amz-*`, the path, the query and the body.
    For that, bodies are held until they are whole, `maxBodyBytes` at most (above: 413), unless
    `unsignedPayload`.

    Keys are in the routers' configuration; without `accessKeyId` each router takes its own: from
    the environment, the web identity of its pod, its container or its instance, as AWS' own tools
    do. The upstream's endpoints must share one host name.
    """

    name: ClassVar[str] = "aws-authentication"
    version: ClassVar[Version] = Version(0, 10, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "region": "eu-west-1",
        "service": "execute-api",
        "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
        "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }

    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{2,64}$")]
    """The region of the service, such as `eu-west-1`."""

    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{2,64}$")]
    """The service's name in signatures, such as `execute-api`, `lambda`, `s3`, `bedrock`."""

    access_key_id: Key | None = None
    """The id of the key; without it each router has credentials of its own."""

    secret_access_key: Secret | None = None
    """The key."""

    session_token: Secret | None = None
    """The token that belongs to temporary keys."""

    unsigned_payload: bool = False
    """Whether bodies are neither held nor signed; `s3` allows it over HTTPS."""

    max_body_bytes: Annotated[int, Field(ge=1, le=64 << 20)] = 1 << 20
    """The largest body that is held and signed, bytes."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("accessKeyId and secretAccessKey are given together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("sessionToken needs accessKeyId and secretAccessKey")
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """In the chain bodies are held; signed is what the upstream will see, see `connections`."""
        if self.unsigned_payload:
            return ()
        config = typed(_BUFFER, {"max_request_bytes": self.max_body_bytes})
        return (HttpFilter(scope.unique(self.name), config),)

    def connections(self) -> Connections:
        """`aws_request_signing` on the way to the upstream."""
        config: Document = {
            "service_name": self.service,
            "region": self.region,
            "match_included_headers": list(_SIGNED),
        }
        if self.unsigned_payload:
            config["use_unsigned_payload"] = True
        if self.access_key_id is not None and self.secret_access_key is not None:
            inline = {
                "access_key_id": self.access_key_id,
                "secret_access_key": self.secret_access_key.get_secret_value(),
            }
            if self.session_token is not None:
                inline["session_token"] = self.session_token.get_secret_value()
            config["credential_provider"] = {
                "inline_credential": inline,
                "custom_credential_provider_chain": True,
            }
        return Connections(
            filters=(
                # without credentials a router signs nothing: nothing that looks like it goes on
                HttpFilter(f"{self.name}.cleared", header_mutation(_CLEARED)),
                HttpFilter(self.name, typed(_SIGNING, config)),
            )
        )
