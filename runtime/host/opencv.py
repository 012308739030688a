"""The one place where the runtime imports OpenCV.

OpenCV and the FFmpeg inside it write to the process's stderr past `logging`, and would garble a command line
that promises one line per failure. Both are silenced before the first import; what a user has set in the
environment wins.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from edge_ad.errors import EdgeAdError

QUIET_ENVIRONMENT = {
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "OPENCV_VIDEOIO_DEBUG": "0",
}
_SILENT = 0


def load_cv2() -> ModuleType:
    """The `cv2` module, imported at the first call and silenced.

    Raises:
        EdgeAdError: OpenCV is absent, or a system library of its is.
    """
    already_imported = "cv2" in sys.modules
    user_chose_level = "OPENCV_LOG_LEVEL" in os.environ
    for variable, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import cv2
    except ImportError as exc:
        reason = " ".join(str(exc).split())
        raise EdgeAdError(
            f"OpenCV does not load ({reason}); pip install opencv-python, or install the system library that is"
            " missing (Debian: libgl1, libglib2.0-0)"
        ) from exc
    if already_imported and not user_chose_level:
        _silence(cv2)
    return cv2


def _silence(cv2: ModuleType) -> None:
    # The environment is read while cv2 loads, so a module that was there before needs the call; OpenCV 4 has
    # both names for it, OpenCV 5 only the second.
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(_SILENT)
    else:
        cv2.utils.logging.setLogLevel(_SILENT)
