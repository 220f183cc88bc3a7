"""How many connections there are, for one client's network and in all, counted from the moment at which they are accepted.

A connection that has not shown a login yet is a stranger's. When all places are taken, the oldest stranger that waits
for nothing makes room: who holds connections open without a login can't keep others out. Trusted proxies, which speak
for many clients, have no limit but that for all.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from guestwire.pacing import network_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PER_NETWORK: Final = 4
"""One network's part of all connections is 1 in so many."""


class Place(Protocol):
    """A connection, as its limits see it."""

    address: str

    @property
    def is_idle(self) -> bool:
        """True while no request is being answered."""
        ...

    def abort(self) -> None:
        """Ends it at once; it leaves the limits by itself."""
        ...


class ConnectionLimits:
    """All connections of a server.

    Args:
        most: in all.
        proxies: networks of trusted proxies.
    """

    def __init__(self, most: int, proxies: Iterable[Network] = ()) -> None:
        self.most = most
        self._per_network = max(most // PER_NETWORK, 1)
        self._proxies = tuple(proxies)
        self._places: set[Place] = set()
        self._strangers: dict[Place, None] = {}
        self._networks: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def refusal(self, address: str) -> str:
        """Why there is no place for another connection of this address; "" when there is one, made free where need be."""
        if self._networks[network_of(address)] >= self._per_network and not self.is_proxy(address):
            return f"{self._per_network} connections of its network are open"
        if len(self._places) >= self.most:
            oldest = next((stranger for stranger in self._strangers if stranger.is_idle), None)
            if not oldest:
                return f"{self.most} connections are open"
            self.remove(oldest)
            oldest.abort()
        return ""

    def add(self, place: Place) -> None:
        """A new connection, of a stranger so far."""
        self._places.add(place)
        self._strangers[place] = None
        self._networks[network_of(place.address)] += 1

    def acknowledge(self, place: Place) -> None:
        """Its client has logged in: it makes room for nobody."""
        self._strangers.pop(place, None)

    def remove(self, place: Place) -> None:
        """It has ended; may be said twice."""
        if place not in self._places:
            return
        self._places.remove(place)
        self._strangers.pop(place, None)
        network = network_of(place.address)
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]

    def is_proxy(self, address: str) -> bool:
        """True if the address is a trusted proxy's."""
        if not self._proxies:
            return False
        found = parse_address(address)
        return found is not None and any(found in network for network in self._proxies)

    def client(self, peer: str, forwarded: str) -> str:
        """The address of the client behind a connection.

        Args:
            peer: the connection's.
            forwarded: the header X-Forwarded-For. It counts only when the peer is a trusted proxy, and from its end: each
                proxy adds the address that it was called from, and what stands before the first that is not trusted is
                its caller's own invention.
        """
        for hop in reversed(forwarded.split(",")):
            if not self.is_proxy(peer):
                break
            found = parse_address(hop.strip())
            if found is None:
                break
            peer = str(found)
        return peer


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address; an IPv4 one that is written as IPv6 is the IPv4 one. None: it is none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found
