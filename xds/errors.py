"""What can go wrong between an API and a router.

* XdsError
  - NotCompiled      the API cannot be said to Envoy: only it is refused, last good is kept
  - BadCertificate   the listener's certificate or key cannot be used: do not start
"""


class XdsError(Exception):
    """Anything wrong in making or serving Envoy's configuration."""


class NotCompiled(XdsError):
    """An API that passed validation has no Envoy configuration."""

    def __init__(self, api_id: str, reason: str) -> None:
        super().__init__(f"API {api_id!r} cannot be compiled: {reason}")
        self.api_id = api_id
        self.reason = reason


class BadCertificate(XdsError):
    """The certificate or key given for HTTPS cannot be used."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the HTTPS certificate cannot be used: {reason}")
        self.reason = reason
