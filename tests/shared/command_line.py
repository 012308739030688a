"""A command as a user types it."""

from __future__ import annotations

from typing import Any

import pytest

from edge_ad.cli.main import main


def called(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What a command that succeeds prints, on both streams."""
    code = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out + told.err
