"""aws-authentication.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from policy_engine.parameters.headers import header_mutation
from policy_engine.policy import (
    Connections,
    Document,
    HttpFilter,
    Parameters,
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


class AssumedRole(Parameters):
    """A role whose temporary credentials sign. Envoy puts its texts into a query as they are."""

    role_arn: Annotated[
        str, Field(pattern=r"^arn:aws[a-z-]{0,16}:iam::[0-9]{12}:role/[A-Za-z0-9_=,.@/-]{1,512}$")
    ]
    """The role's ARN, such as `arn:aws:iam::123456789012:role/orders`."""

    session_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_=,.@-]{2,64}$")] = "signalbox"
    """What the session is called in the logs of AWS."""

    external_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_=,.@:/-]{2,1224}$")] = None
    """What the role's trust policy may ask for, of accounts of others."""

    session_seconds: Annotated[int, Field(ge=900, le=43_200)] = 3600
    """How long credentials are good for; routers fetch new ones before that."""


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

    With `assumeRole` these keys only ask AWS STS, at `sts.{region}.amazonaws.com`, for temporary
    ones of the role, and those sign; routers need to reach it over HTTPS. While STS refuses or is
    away, requests go on unsigned, and AWS refuses them.
    """

    name: ClassVar[str] = "aws-authentication"
    version: ClassVar[Version] = Version(0, 11, 0)
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

    assume_role: AssumedRole | None = None
    """The role whose temporary credentials sign, instead of those that ask for them."""

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
        if self.assume_role is not None:
            config["credential_provider"] = _of_role(self.assume_role, self._asking())
        elif inline := self._inline():
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

    def _inline(self) -> Document:
        """The keys that were given; empty: those of the router."""
        if self.access_key_id is None or self.secret_access_key is None:
            return {}
        inline = {
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key.get_secret_value(),
        }
        if self.session_token is not None:
            inline["session_token"] = self.session_token.get_secret_value()
        return inline

    def _asking(self) -> Document:
        """Who asks for a role: Envoy 1.40 takes such keys from a file only, or the text of one."""
        inline = self._inline()
        if not inline:
            return {}
        text = "".join(("[default]\n", *(f"aws_{key}={one}\n" for key, one in inline.items())))
        return {
            "credentials_file_provider": {"credentials_data_source": {"inline_string": text}},
            "custom_credential_provider_chain": True,
        }


def _of_role(role: AssumedRole, asking: Document) -> Document:
    """The role's credentials and no others; `asking`: who asks for them."""
    assumed: Document = {
        "role_arn": role.role_arn,
        "role_session_name": role.session_name,
        "session_duration": f"{role.session_seconds}s",
    }
    if role.external_id is not None:
        assumed["external_id"] = role.external_id
    if asking:
        assumed["credential_provider"] = asking
    return {"assume_role_credential_provider": assumed, "custom_credential_provider_chain": True}
