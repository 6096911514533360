"""Addresses for Droplets: each is handed out once in a round and never while somebody has it. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

LOOPBACK_FIRST = int(IPv4Address("127.16.0.0"))
"""Below it is what people and other programs use by hand."""

LOOPBACK_COUNT = int(IPv4Address("127.255.0.0")) - LOOPBACK_FIRST


class AddressPool:
    """A run of IPv4 addresses, dealt in turn; those that end in .0, .1 and .255 are left out.

    Args:
        offset: where to begin. Sandboxes beside each other on one machine share 127.0.0.0/8, so each begins elsewhere.
    """

    def __init__(self, first: int, count: int, offset: int = 0) -> None:
        self._first = first
        self._count = count
        self._next = offset % count
        self._taken: set[str] = set()

    def take(self) -> str:
        """A free address.

        Raises:
            LookupError: all are taken.
        """
        for _ in range(self._count):
            number = self._first + self._next
            self._next = (self._next + 1) % self._count
            address = str(IPv4Address(number))
            if number % 256 not in (0, 1, 255) and address not in self._taken:
                self._taken.add(address)
                return address
        raise LookupError("all addresses are taken")

    def hold(self, address: str) -> None:
        """Mark one as taken, when state is read back."""
        self._taken.add(address)

    def release(self, address: str) -> None:
        """Its Droplet is gone."""
        self._taken.discard(address)
