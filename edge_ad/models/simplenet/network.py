"""SimpleNet as published: a patch head whose answers are high for what is normal, turned round.

Liu, Zhou, Xu, Wang: "SimpleNet: A Simple Network for Image Anomaly Detection and Localization", CVPR 2023 (arXiv
2303.15140), section 3.
"""

from __future__ import annotations

from edge_ad.models.patch_head.network import PatchHead


class SimpleNet(PatchHead):
    """(N, 3, H, W) float32 normalised RGB → (N, h, w) float32 anomaly scores without bounds."""

    title = "SimpleNet"
    sign = -1.0
    bare_tail = True
