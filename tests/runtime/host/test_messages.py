"""What is said to the user says how things are, and does not fill a disk."""

from __future__ import annotations

from edge_ad.runtime.host.messages import BURST, WINDOW_S, UpAndDown, unfailing


def test_what_changes_all_the_time_is_said_now_and_then_and_ends_with_the_truth() -> None:
    now_s, said = [0.0], list[str]()
    state = UpAndDown(said.append, lambda: "up", now_s=lambda: now_s[0])
    state.up()  # as it was
    assert said == []
    for _ in range(500):
        state.down("down")
        state.down("down for another reason")
        state.up()
        now_s[0] += 0.01
    state.down("down at last")
    assert said == ["down", "up"] * (BURST // 2)
    now_s[0] = WINDOW_S
    state.remind()
    assert said[-1] == f"down at last (it has changed {2 * 500 + 1 - BURST} times meanwhile)"
    state.remind()
    assert len(said) == BURST + 1
    now_s[0] += WINDOW_S
    state.up()
    assert said[-1] == "up"


def test_a_broken_pipe_is_no_accident() -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError

    unfailing(broken)("nobody hears")
