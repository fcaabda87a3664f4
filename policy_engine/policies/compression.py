"""compression."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints

from policy_engine.policy import Document, HttpFilter, Policy, Purpose, Scope, Version, typed

_FILTER = "envoy.extensions.filters.http.compressor.v3.Compressor"
_LIBRARIES = {
    "gzip": "envoy.extensions.compression.gzip.compressor.v3.Gzip",
    "brotli": "envoy.extensions.compression.brotli.compressor.v3.Brotli",
    "zstd": "envoy.extensions.compression.zstd.compressor.v3.Zstd",
}
Algorithm = Literal["gzip", "brotli", "zstd"]
ContentType = Annotated[
    str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+$")
]


def _once(algorithms: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
    if len(set(algorithms)) < len(algorithms):
        raise ValueError("an algorithm must not be given twice")
    return algorithms


class Compression(Policy):
    """Compresses responses for callers that accept it.

    What the upstream has compressed stays as it is, as do responses with
    `Cache-Control: no-transform`. The upstream still sees the caller's `Accept-Encoding`.
    """

    name: ClassVar[str] = "compression"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {"algorithms": ["zstd", "brotli", "gzip"], "minBytes": 1024}

    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1), AfterValidator(_once)] = (
        "gzip",
    )
    """What to compress with. Of those that a caller accepts equally the first is taken."""

    content_types: Annotated[tuple[ContentType, ...], Field(min_length=1, max_length=100)] = (
        "application/json",
        "application/javascript",
        "application/xml",
        "image/svg+xml",
        "text/css",
        "text/html",
        "text/plain",
        "text/xml",
    )
    """The media types to compress, without parameters."""

    min_bytes: Annotated[int, Field(ge=30, le=1 << 30)] = 1024
    """The shortest body to compress, bytes; one of unknown length is compressed."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """A `compressor` filter per algorithm."""
        name = scope.unique(self.name)
        return tuple(
            HttpFilter(f"{name}.{algorithm}", self._compressor(algorithm, at == 0))
            for at, algorithm in enumerate(self.algorithms)
        )

    def _compressor(self, algorithm: Algorithm, first: bool) -> Document:
        library = {"name": algorithm, "typed_config": typed(_LIBRARIES[algorithm])}
        common = {"min_content_length": self.min_bytes, "content_type": list(self.content_types)}
        return typed(
            _FILTER,
            {
                "compressor_library": library,
                "response_direction_config": {
                    "common_config": common,
                    "weaken_etag_on_compress": True,
                },
                "choose_first": first,
            },
        )
