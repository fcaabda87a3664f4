"""What can go wrong between an API and a router.

* XdsError
  - NotCompiled      the API cannot be said to Envoy: only it is refused, last good is kept
  - BadCertificate   a certificate or key that is configured cannot be used: do not start
  - InsecureAddress  other machines could read the configuration unproven: do not start
"""

from collections.abc import Sequence


class XdsError(Exception):
    """Anything wrong in making or serving Envoy's configuration."""


class NotCompiled(XdsError):
    """An API that passed validation has no Envoy configuration."""

    def __init__(self, api_id: str, reason: str) -> None:
        super().__init__(f"API {api_id!r} cannot be compiled: {reason}")
        self.api_id = api_id
        self.reason = reason


class BadCertificate(XdsError):
    """A certificate or key that is configured cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"a certificate cannot be used: {reason}")
        self.reason = reason


class InsecureAddress(XdsError):
    """The configuration service would be open to other machines that prove nothing."""

    def __init__(self, address: str, missing: Sequence[str]) -> None:
        super().__init__(
            f"xds_address {address} is open to other machines: set {' and '.join(missing)}, "
            "or use a loopback address"
        )
        self.address = address
        self.missing = tuple(missing)
