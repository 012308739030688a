"""GLASS as published, normal branch: a patch head whose logits are high for anomalies.

Chen, Luo, Lv, Zhang: "A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection and
Localization", ECCV 2024 (arXiv 2407.09359), section 3.
"""

from __future__ import annotations

from edge_ad.models.patch_head.network import PatchHead


class Glass(PatchHead):
    """(N, 3, H, W) float32 normalised RGB → (N, h, w) float32 logits."""

    title = "GLASS"
