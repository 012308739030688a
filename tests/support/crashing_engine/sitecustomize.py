"""Python runs this when it starts, where PYTHONPATH names this folder: the fake engine becomes one that crashes."""

import os

if "EDGE_AD_CRASHING_ENGINE" in os.environ:
    from edge_ad.runtime.engines import ENGINES

    ENGINES["fake"] = "crashing_engine:CrashingEngine"
