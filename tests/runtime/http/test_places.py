"""Who gives way to whom, by the rule alone: no socket, and a clock that the test advances."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.http.places import Places, network_of


class Steps:
    """A clock that goes on with every look at it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def test_an_address_that_has_its_share_closes_its_own_oldest() -> None:
    places = Places(10, 2, 2, Steps())
    assert [places.enter(name, "10.0.0.1") for name in "abc"] == [None, None, "a"]
    assert places.enter("x", "10.0.0.2") is None
    places.wait("b")  # something was heard of it
    assert places.enter("d", "10.0.0.1") == "c"


def test_where_all_places_are_taken_whoever_has_most_gives_way() -> None:
    places = Places(4, 3, 1, Steps())
    for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.2"), ("d", "10.0.0.2")):
        assert places.enter(name, address) is None
    assert places.enter("e", "10.0.0.3") == "b"
    assert len(places) == 4


def test_one_that_has_proven_itself_is_no_stranger_any_more() -> None:
    places = Places(2, 2, 2, Steps())
    assert places.enter("plc", "10.0.0.1") is None
    assert places.prove("plc") is None
    closed = [places.enter(number, "10.0.0.1") for number in range(50)]
    assert closed == [None, None, *range(48)]


def test_the_oldest_idle_proven_one_gives_way_and_none_that_is_owed_an_answer() -> None:
    places = Places(9, 9, 2, Steps())
    for name in "abcd":
        places.enter(name, "10.0.0.1")
    assert (places.prove("a"), places.prove("b")) == (None, None)
    places.owe("a")
    assert places.prove("c") == "b"
    places.owe("c")
    assert places.prove("d") is None  # it stays among the strangers, and is answered there
    places.owe("d")
    assert [places.enter(number, "10.0.0.1") for number in range(8)] == [None] * 8
    assert places.enter("e", "10.0.0.1") == 0  # d is older, and is owed an answer


def test_where_nobody_can_give_way_the_newcomer_does() -> None:
    places = Places(2, 2, 0, Steps())
    for name in "ab":
        places.enter(name, "::1")
        places.prove(name)
        places.owe(name)
    assert places.enter("c", "::1") == "c"
    assert places.give_way() is None
    places.wait("b")
    assert places.enter("c", "::1") == "b"
    assert places.give_way() == "c"


def test_what_counts_as_one_client() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::2:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("") == ""


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "prove", "owe", "wait", "leave"]), st.integers(0, 30), st.integers(0, 3)),
    max_size=120,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(STEPS)
def test_the_places_are_never_more_and_nobody_who_is_owed_an_answer_is_closed(
    steps: list[tuple[str, int, int]],
) -> None:
    places, there, proven, owed = Places(5, 3, 2, Steps()), set(), set(), set()
    for number, (what, name, network) in enumerate(steps):
        victim = None
        if what == "enter":
            name = 1000 + number
            victim = places.enter(name, f"10.0.0.{network}")
            there.add(name)
        elif name < len(there):
            name = sorted(there)[name]
            if what == "prove":
                victim = places.prove(name)
                proven.add(name)
            elif what == "owe" and name in proven:
                places.owe(name)
                owed.add(name)
            elif what == "wait":
                places.wait(name)
                owed.discard(name)
            elif what == "leave":
                places.leave(name)
                there.discard(name)
                owed.discard(name)
        assert victim not in owed
        there.discard(victim)
        assert len(places) == len(there) <= 5 + 2
