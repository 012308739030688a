"""One exit code for each kind of failure, and which failures of the system may pass."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from edge_ad import errors
from edge_ad.errors import BundleError, EdgeAdError, OutputError, UnavailableError, may_pass


def kinds(kind: type[EdgeAdError] = EdgeAdError) -> Iterator[type[EdgeAdError]]:
    yield kind
    for other in kind.__subclasses__():
        yield from kinds(other)


def test_every_kind_has_a_code_and_a_line_in_the_tree() -> None:
    own = {kind for kind in kinds() if kind.__bases__ in ((EdgeAdError,), (Exception,))}
    codes = sorted(kind.exit_code for kind in own)
    assert codes == [1, *range(3, 19)]
    assert errors.__doc__ is not None
    for kind in own:
        assert any(line.split()[-len(line.split()) :] for line in errors.__doc__.splitlines() if kind.__name__ in line)


def test_what_cannot_be_read_now_is_still_a_bundle_and_an_output() -> None:
    assert issubclass(errors.BundleUnavailableError, BundleError)
    assert issubclass(errors.OutputUnavailableError, OutputError)
    both = {errors.BundleUnavailableError.exit_code, errors.OutputUnavailableError.exit_code}
    assert both == {UnavailableError.exit_code}


@pytest.mark.parametrize(
    ("number", "passes"),
    [
        *((number, True) for number in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ENOTCONN)),
        *((number, False) for number in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)),
        (None, False),
    ],
)
def test_what_may_pass(number: int | None, passes: bool) -> None:
    assert may_pass(OSError() if number is None else OSError(number, "")) is passes
