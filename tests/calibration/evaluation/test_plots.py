"""Charts need nothing of the user's HOME."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DRAW = """
from edge_ad.calibration.evaluation.charts import blank_figure, svg_bytes
assert svg_bytes(blank_figure((1, 1))).startswith(b"<?xml")
"""


def test_a_home_that_cannot_be_written_is_nothing_to_speak_of(tmp_path: Path) -> None:
    (tmp_path / "home").touch()  # a file cannot be written to as a folder, not by root either
    dropped = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    warned = "import matplotlib\nmatplotlib.get_cachedir()"  # the control
    done = subprocess.run([sys.executable, "-c", warned], env=environment, capture_output=True, text=True, timeout=120)
    assert "MPLCONFIGDIR" in done.stderr
