"""The fake engine with faults that no Python can catch, told by the first pixel of a batch or by the environment."""

from __future__ import annotations

import ctypes
import logging
import os
import time
import warnings
from pathlib import Path

from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.fake import FakeEngine

CRASH_AT = "EDGE_AD_CRASHING_ENGINE"
"""Environment variable: load, hang, refuse, defect or close; or the path of a file, with which loading fails."""


def segfault() -> None:
    ctypes.string_at(0)


class CrashingEngine(FakeEngine):
    def load_impl(self) -> None:
        where = os.environ[CRASH_AT]
        if where == "load" or (where.startswith("/") and Path(where).exists()):
            segfault()
        if where == "hang":
            time.sleep(3600)
        if where == "refuse":
            raise EngineError("wanted another graph, got this one; export it again")
        if where == "defect":
            raise KeyError("no such thing")
        if where == "graph":
            self._read_model()
        logging.getLogger("edge_ad.runtime.engines.crashing").warning("loaded %s", self.spec.precision)
        warnings.warn("this library grows old", DeprecationWarning, stacklevel=1)
        super().load_impl()

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        match int(batch_nhwc[:, 0, 0, 0].max()):
            case 241:
                segfault()
            case 242:
                os._exit(7)
            case 243:
                time.sleep(3600)
            case 244:
                ctypes.PyDLL(None).sleep(3600)  # no other thread of Python runs meanwhile
            case 245:
                raise EngineError("refused")
            case 246:
                raise ValueError("a defect")
            case 248:
                if os.fork() == 0:
                    time.sleep(2)
                    os._exit(0)
                segfault()
            case 247:
                outputs = super().infer_impl(batch_nhwc)
                return Outputs(outputs.patch_map[:, 1:], outputs.anomaly_map, outputs.pred_score)
        return super().infer_impl(batch_nhwc)

    def close_impl(self) -> None:
        if os.environ[CRASH_AT] == "close":
            segfault()
        super().close_impl()
