"""Who gives way when connections are more than there are places for: a newcomer always finds one.

A connection begins among the strangers. One whose request was proven, by its token, has a place of those that are
reserved, so that no number of strangers keeps a trigger from the line.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

_IPV6_NETWORK = 64  # bits; one customer has at least so many addresses


@dataclass
class _Place:
    """Attributes: since_s: of the last that happened on it; owed: a proven request waits for its answer."""

    network: Hashable
    since_s: float
    proven: bool = False
    owed: bool = False


class Places:
    """The open connections, by whatever stands for them.

    Args:
        strangers: places for connections that have proven nothing.
        per_network: how many of them one address may have (of IPv6: one network of 64 bits).
        reserved: places for proven ones.
        now_s: a clock.
    """

    def __init__(self, strangers: int, per_network: int, reserved: int, now_s: Callable[[], float]) -> None:
        self._strangers = strangers
        self._per_network = per_network
        self._reserved = reserved
        self._now_s = now_s
        self._places: dict[Hashable, _Place] = {}  # those of which nothing was heard for longest are found by `since_s`

    def __len__(self) -> int:
        return len(self._places)

    def enter(self, connection: Hashable, address: str) -> Hashable | None:
        """Give a new connection a place. Returns: the one to be closed for it, which has no place any more, or None.

        That is the new one where nobody can give way: all others are answered at the moment.
        """
        victim = self._victim(network := network_of(address))
        if victim is None and self._count(proven=False) >= self._strangers:
            return connection
        self._places.pop(victim, None)
        self._places[connection] = _Place(network, self._now_s())
        return victim

    def prove(self, connection: Hashable) -> Hashable | None:
        """A connection has shown that it may ask. Returns: as for `enter`; where no proven one can give way it stays
        where it is, and is answered all the same.
        """
        place = self._places.get(connection)
        if place is None or place.proven:
            return None
        victim = None
        if self._count(proven=True) >= self._reserved:
            victim = self._oldest(key for key, one in self._places.items() if one.proven and not one.owed)
            if victim is None:
                return None
            del self._places[victim]
        place.proven = True
        return victim

    def owe(self, connection: Hashable) -> None:
        """The request of a connection that may ask is whole; it keeps its place until it is answered."""
        self._note(connection, owed=True)

    def wait(self, connection: Hashable) -> None:
        """It is the other side's turn: to send a request, or to take an answer."""
        self._note(connection, owed=False)

    def leave(self, connection: Hashable) -> None:
        """A connection has been closed."""
        self._places.pop(connection, None)

    def give_way(self) -> Hashable | None:
        """The connection that can best be done without, which has no place any more; None where there is none."""
        waiting = [key for key, one in self._places.items() if not one.owed]
        strangers = [key for key in waiting if not self._places[key].proven]
        victim = self._oldest(strangers or waiting)
        self._places.pop(victim, None)
        return victim

    def _note(self, connection: Hashable, *, owed: bool) -> None:
        place = self._places.get(connection)
        if place is not None:
            place.owed, place.since_s = owed, self._now_s()

    def _count(self, *, proven: bool) -> int:
        return sum(one.proven is proven for one in self._places.values())

    def _victim(self, network: Hashable) -> Hashable | None:
        """The stranger that gives way to one from `network`: of that one where it has its share, else of whoever has
        most.
        """
        of_networks: dict[Hashable, list[Hashable]] = defaultdict(list)
        for key, one in self._places.items():
            if not one.proven:
                of_networks[one.network].append(key)
        own = of_networks.get(network, [])
        if len(own) < self._per_network:
            if sum(map(len, of_networks.values())) < self._strangers:
                return None
            own = max(of_networks.values(), key=len)
        return self._oldest(key for key in own if not self._places[key].owed)

    def _oldest(self, keys: Iterable[Hashable]) -> Hashable | None:
        return min(keys, key=lambda key: self._places[key].since_s, default=None)


def network_of(address: str) -> Hashable:
    """What counts as one client: an address, of IPv6 the network that it is in."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, _IPV6_NETWORK), strict=False))
    return str(ip)
