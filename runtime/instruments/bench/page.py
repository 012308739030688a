"""The results of a measurement as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.instruments.bench.measure import STAGES
from edge_ad.runtime.instruments.bench.record import result_json
from edge_ad.runtime.instruments.bench.run import BenchResult

BINS = 48
WIDTH, HEIGHT = 720, 150  # of a histogram's bars, in pixels
MOST_LAYERS = 60
SHOWN = 0.995  # quantile up to which a histogram reaches, so that one outlier does not flatten it
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child, td.text, th.text { text-align: left; overflow-wrap: anywhere; }
.bar { background: #3a7ca5; height: .8em; display: inline-block; }
.slower { color: #b00020; font-weight: bold; } .unclear { color: #8a6100; } .faster { color: #1b6e2e; }
small { color: #666; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
"""


def page(result: BenchResult, percentiles: Sequence[float]) -> bytes:
    """The page as UTF-8."""
    told = result_json(result, percentiles)
    subject, run = told["subject"], told["run"]
    height, width = subject["frame_hw"]
    parts = [
        f"<h1>{_text(result.bundle)}</h1>",
        f"<p>{_text(subject['engine'])}, {_text(subject['precision'])} computed in {_text(subject['computed_in'])},"
        f" batch {subject['batch']}, frame {width}×{height}; {run['frames']} frames in {run['elapsed_s']:.1f} s,"
        f" {run['rounds']} rounds; {_text(result.measured_at)}</p>",
        f"<p>{_text(', '.join(f'{name} {value}' for name, value in result.machine.items()))};"
        f" {told['threads']} threads of OpenVINO</p>",
        *(f"<p class=unclear>{_text(note)}</p>" for note in result.notes),
        "<h2>Latency</h2>",
        _latency(told["latency_ms"]),
        f"<p>{told['frames_per_s']:.1f} frames per second, one stage after the other;"
        f" ready {run['ready_s']:.2f} s after the bundle was read"
        f" ({'compiled model from the cache' if run['from_cache'] else 'nothing from the cache'}).</p>",
        *(_histogram(stage, result.measurement.stage_ms(stage)) for stage in ("total", "infer", "preprocess")),
        *_gate(told["gate"]),
        "<h2>Roofline</h2>",
        _roofline(told["roofline"]),
        "<h2>Energy and clocks</h2>",
        _energy(told["energy"]),
        "<h2>Layers</h2>",
        _layers(told["layers"]),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>edge-ad bench: {_text(result.bundle)}</title><style>{STYLE}</style></head><body>"
    )
    return f"{head}{''.join(parts)}</body></html>\n".encode("utf-8", "backslashreplace")


def _text(value: object) -> str:
    return escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Of cells that are HTML already."""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def _latency(table: dict[str, dict[str, float]]) -> str:
    columns = list(table[STAGES[0]])
    rows = ([stage, *(f"{table[stage][column]:.2f}" for column in columns)] for stage in STAGES)
    return _table(["ms", *columns], rows)


def _histogram(stage: str, times_ms: NDArray[np.float64]) -> str:
    """Bars by elapsed time, with the median and the 99 % percentile marked."""
    low, high = float(times_ms.min()), float(np.quantile(times_ms, SHOWN))
    high = high if high > low else low + 1e-3
    counts, _ = np.histogram(times_ms, BINS, (low, high))
    beyond = int((times_ms > high).sum())
    step, most = WIDTH / BINS, max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{index * step:.1f}" y="{HEIGHT - count / most * HEIGHT:.1f}" width="{step - 1:.1f}"'
        f' height="{count / most * HEIGHT:.1f}" fill="#3a7ca5"/>'
        for index, count in enumerate(counts.tolist())
    )
    marks = ""
    for name, value in (("p50", np.percentile(times_ms, 50)), ("p99", np.percentile(times_ms, 99))):
        x = min(1.0, (float(value) - low) / (high - low)) * WIDTH
        marks += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="#b00020" stroke-dasharray="3 3"/>'
        marks += f'<text x="{x + 3:.1f}" y="12">{name}</text>'
    ends = (
        f'<text x="0" y="{HEIGHT + 16}">{low:.2f} ms</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 16}" text-anchor="end">{high:.2f} ms</text>'
    )
    more = f" <small>({beyond} more beyond, up to {float(times_ms.max()):.2f} ms)</small>" if beyond else ""
    return (
        f'<h3>{stage}{more}</h3><svg width="{WIDTH + 40}" height="{HEIGHT + 24}" role="img"'
        f' aria-label="histogram of {stage}">{bars}{marks}{ends}</svg>'
    )


def _gate(gate: dict[str, Any] | None) -> list[str]:
    if gate is None:
        return []
    rows = [
        [
            stage,
            *(f"{(change[name] - 1) * 100:+.1f} %" for name in ("ratio", "low", "high")),
            f'<span class="{change["finding"]}">{change["finding"]}</span>',
        ]
        for stage, change in gate["changes"].items()
    ]
    return [
        "<h2>Against the baseline</h2>",
        f"<p>{_text(gate['clock'])} time, limit {gate['limit'] * 100:+.0f} %; {_text(gate['rule'])}</p>",
        _table(["stage", "change", "from", "to", "finding"], rows),
        *(f"<p>{_text(note)}</p>" for note in gate["notes"]),
    ]


def _roofline(roof: dict[str, Any]) -> str:
    rows = [
        [
            _text(peak["arithmetic"]),
            _number(peak["gmac_per_s"]),
            _number(peak["best_gmac_per_s"]),
            _text(peak["kernel"] or peak["reason"]),
        ]
        for peak in roof["peaks"]
    ]
    words = [] if roof["gmac"] is None else [f"the graph has {roof['gmac']:.3f} GMAC per call"]
    words += [] if roof["gmac_per_s"] is None else [f"the engine does {roof['gmac_per_s']:.1f} GMAC/s"]
    if roof["share"] is not None:
        words.append(
            f"{roof['share']:.0%} of the peak in its own arithmetic ({roof['best_share']:.0%} by the fastest calls),"
            f" by {roof['clock']} time"
        )
    words += [] if roof["reason"] is None else [_text(roof["reason"])]
    return f"<p>{'; '.join(words)}</p>" + _table(["peak (GEMM 2048)", "GMAC/s", "best", "kernel"], rows)


def _energy(energy: dict[str, Any]) -> str:
    rows = [
        [
            _text(each["source"]),
            _number(each["joules_per_frame"], 3),
            _number(each["watts"]),
            "–" if each["clocks_mhz"] is None else " / ".join(f"{clock:.0f}" for clock in each["clocks_mhz"]),
        ]
        for each in energy["sources"]
    ]
    silent = "".join(f"<p><small>{_text(line)}</small></p>" for line in energy["silent"])
    head = ["source", "J per frame", "W", "MHz: lowest / median / highest"]
    return (_table(head, rows) if rows else "<p>This machine tells neither.</p>") + silent


def _layers(layers: dict[str, Any]) -> str:
    shown = layers["layers"][:MOST_LAYERS]
    if not shown:
        return f"<p>{_text(layers['note'])}</p>"
    total = sum(layer["mean_ms"] for layer in layers["layers"])
    rows = [
        [
            _text(layer["name"]),
            _text(layer["kind"]),
            _text(layer["kernel"]),
            f"{layer['mean_ms']:.3f}",
            f"{layer['mean_ms'] / total:.1%}",
            f'<span class="bar" style="width:{layer["mean_ms"] / shown[0]["mean_ms"] * 8:.2f}rem"></span>',
        ]
        for layer in shown
    ]
    more = (
        f"<p><small>and {len(layers['layers']) - len(shown)} more</small></p>"
        if len(layers["layers"]) > len(shown)
        else ""
    )
    return f"<p>{_text(layers['note'])}</p>" + _table(["layer", "kind", "kernel", "ms", "share", ""], rows) + more


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
