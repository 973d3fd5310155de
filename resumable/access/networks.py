"""Whether an address is one of those that an operator has named, and what counts as one client's address.

Reason to change: how addresses are compared. Invariant: an IPv4 address is itself, however IPv6 wraps it (RFC 4291
section 2.5.5.2); what is no address belongs nowhere. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address within, if there is one."""
    return getattr(address, "ipv4_mapped", None) or address


def counted(host: str) -> str:
    """What an address is counted as: a client with IPv6 has a /64, all of it (RFC 6177, RFC 8981).

    It begins with a blank, so that nobody's name can be the same.
    """
    try:
        address = plain(ip_address(host.partition("%")[0]))
    except ValueError:
        return f" {host}"
    return f" {address}" if address.version == 4 else f" {IPv6Network((int(address) >> 64 << 64, 64))}"


def belongs(host: str, networks: Iterable[Network]) -> bool:
    """Whether the address, which may have a zone (``%eth0``), is in one of them."""
    try:
        address = plain(ip_address(host.partition("%")[0]))
    except ValueError:
        return False
    return any(address in network for network in networks)
