"""Clients: which addresses are one."""

import ipaddress

IPV6_PREFIX = 64
"""Bits of an IPv6 address that tell clients apart: the others are each client's own to choose."""


def get_network(address: str) -> str:
    """Return what stands for a client in a count: its IPv4 address, or the /64 network of its IPv6 address.

    What is no IP address, as what a proxy forwards may be, stands for itself.
    """
    if ":" not in address:
        return address
    try:
        ip = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip), IPV6_PREFIX), strict=False).network_address)
