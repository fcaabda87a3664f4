"""Which addresses may be contacted because a caller named them.

Source: https://www.iana.org/assignments/iana-ipv4-special-registry and its IPv6 sibling
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


def is_public(address: str) -> bool:
    """Whether `address` (a literal, without brackets or scope) is anybody's on the internet.

    Private, loopback, link-local, multicast and reserved ones are not, nor IPv6 addresses that
    stand for such IPv4 ones. False for what is no address.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_global(parsed)


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inside = address.teredo[1]
        if any(address in network for network in _NAT64):
            inside = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inside is not None:
            return _is_global(inside)
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )
