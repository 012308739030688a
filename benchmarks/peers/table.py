"""One table of all peers, every figure as measured, as text and as plain values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from measure import Found

from edge_ad.metrics.ranking import auroc

COLUMNS = (
    ("latency_ms", "latency ms", "{:.1f}"),
    ("times_as_fast", "x authors'", "{:.2f}"),
    ("frames_per_s", "frames/s", "{:.2f}"),
    ("start_s", "start s", "{:.2f}"),
    ("peak_rss_mib", "memory MiB", "{:.0f}"),
    ("installed_mib", "installed MiB", "{:.0f}"),
    ("image_auroc", "image AUROC", "{:.4f}"),
    ("pixel_auroc", "pixel AUROC", "{:.4f}"),
    ("computes_in", "computes in", "{}"),
)
NOTES = (
    ("start that compiles", "failed, not from its cache: ", "compiling_fault"),
    ("not complete", "", "reason"),
)
"""Lines below a peer's figures."""


def rows(
    found: Mapping[str, Found],
    installed_mib: Mapping[str, float],
    truth: Sequence[bool],
    reference: str,
    pixel_auroc: Mapping[str, float | None] | None = None,
) -> dict[str, dict[str, Any]]:
    """What to say of each peer. A figure that was not measured is None.

    How many times as fast it is, is the median of the ratios within a turn: what else the machine does then cancels.

    Args:
        truth: which of the pictures are anomalous; empty where scores say nothing of that.
        reference: the peer that the others are compared with.
        pixel_auroc: of those that have one.
    """
    compared = found[reference].latency_ms if reference in found else []
    result = {}
    for name, each in found.items():
        latency_ms, stretch_ms = _median(each.latency_ms), _median(each.stretch_ms)
        result[name] = {
            "latency_ms": latency_ms,
            "times_as_fast": _median([other / one for one, other in zip(each.latency_ms, compared, strict=False)]),
            "frames_per_s": 1e3 / stretch_ms if stretch_ms else None,
            "start_s": _median(each.start_s),
            "peak_rss_mib": max(each.peak_rss_mib, default=None),
            "installed_mib": installed_mib.get(name),
            "image_auroc": auroc(each.scores, truth) if each.scores and truth else None,
            "pixel_auroc": (pixel_auroc or {}).get(name),
            "computes_in": each.computes_in or None,
            "compiling_fault": "; ".join(dict.fromkeys(each.compiling_faults)) or None,
            "reason": each.reason,
        }
    return result


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def table(rows_by_name: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows in Markdown. What could not be measured at all is `not available`, with the reason.

    A peer whose process fails when it has to compile, and works from its cache, has both: its figures and the fault.
    """
    lines = ["| peer | " + " | ".join(title for _, title, _ in COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, row in rows_by_name.items():
        if row.get("latency_ms") is None and row.get("reason"):
            lines.append(f"| {name} | not available: {row['reason']} |" + " |" * (len(COLUMNS) - 1))
            continue
        cells = ["–" if row[key] is None else form.format(row[key]) for key, _, form in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        for title, what, key in NOTES:
            if row.get(key):
                lines.append(f"| {name}, {title} | {what}{row[key]} |" + " |" * (len(COLUMNS) - 1))
    return "\n".join(lines)
