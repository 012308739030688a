"""What OpenVINO says reaches the user as a reason on one line that no terminal minds."""

from __future__ import annotations

import pytest

from edge_ad.openvino_core import MOST_CHARACTERS, openvino_reason

PLACE = "Exception from src/inference/src/cpp/core.cpp:105:"
CHECK = "Check 'res.status == pugi::status_ok' failed at src/frontends/ir/src/input_model.cpp:229:"


def _undecodable(said: bytes) -> UnicodeDecodeError:
    with pytest.raises(UnicodeDecodeError) as caught:
        said.decode()
    return caught.value


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (RuntimeError(f"{PLACE}\n{PLACE}\nnode not found in graph cache\n\n"), "node not found in graph cache"),
        (RuntimeError(f"{PLACE}\n{CHECK}\nStart-end tags mismatch at offset 3"), "Start-end tags mismatch at offset 3"),
        (RuntimeError(f"{PLACE}\n{CHECK}\nfirst\n  second"), "first second"),
        (RuntimeError(f"{PLACE}\n{CHECK}\n"), CHECK),
        (RuntimeError(PLACE), PLACE),
        (RuntimeError("Exception from here:1: and more"), "Exception from here:1: and more"),
        (RuntimeError(""), "RuntimeError"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("a\x1b[31mred\x07 \u202eb"), r"a\x1b[31mred\x07 \u202eb"),
        (_undecodable(f"{PLACE}\n".encode() + b"node \xa9 not found"), r"node \xa9 not found"),
    ],
)
def test_the_reason_is_kept(exc: BaseException, reason: str) -> None:
    assert openvino_reason(exc) == reason


def test_it_has_an_end() -> None:
    assert len(openvino_reason(RuntimeError("x" * 10_000))) == MOST_CHARACTERS + 1
