"""Bodies as others compress them: how, by the content coding's name."""

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Pack = Callable[[bytes], bytes]


def raw_deflate(content: bytes) -> bytes:
    """Without the header of zlib."""
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(content) + made.flush()


def streamed_zstd(content: bytes, *, window_log: int = 0) -> bytes:
    """As servers do that do not know the length before."""
    made = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return made.compress(content) + made.flush()


def flushed_brotli(content: bytes) -> bytes:
    """As servers do that send what they have."""
    made = brotli.Compressor()
    return bytes(made.process(content) + made.flush() + made.finish())


def gzipped(content: bytes) -> bytes:
    """The same bytes at any time."""
    return gzip.compress(content, mtime=0)


PACKED: list[tuple[str, Pack]] = [
    ("gzip", gzipped),
    ("x-gzip", gzipped),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
    ("br", flushed_brotli),
    ("zstd", zstd.compress),
    ("zstd", streamed_zstd),
]
PACK: dict[str, Pack] = dict(PACKED)
"""One way for each coding."""
