"""A report as one HTML page that needs nothing else: no script, no picture from elsewhere, plots as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mastering.contract import BandLevel, Measurements, Report
from mastering.presets import presets

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT, _MARGIN = 720, 240, 44
_COLOURS = ("#8a8f98", "#1f6feb", "#b45309")
_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{padding:.2rem .5rem;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}figure{margin:1.5rem 0}
svg text{font-size:11px;fill:currentColor}figcaption{font-size:.9rem}
"""
_ROWS = (
    ("Integrated loudness, LUFS", "integrated_lufs"),
    ("Highest short-term, LUFS", "max_short_term_lufs"),
    ("Loudness range, LU", "loudness_range_lu"),
    ("True peak, dBTP", "true_peak_dbtp"),
    ("Peak to loudness, LU", "peak_to_loudness_lu"),
    ("Correlation", "correlation"),
    ("Width, dB", "width_db"),
)


def html(report: Report) -> str:
    """The whole page."""
    parts = [_table(report), _flags(report), _steps(report), *_plots(report), _costs(report), _platforms(report.after)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Mastering report</title>'
        f"<style>{_STYLE}</style></head><body><h1>Mastering report</h1>{''.join(parts)}"
        f"<p>Engine {escape(report.engine_version)}</p></body></html>\n"
    )


def _table(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{title}</td><td>{_number(getattr(report.before, field))}</td>"
        f"<td>{_number(getattr(report.after, field))}</td></tr>"
        for title, field in _ROWS
    )
    return f"<table><tr><th></th><th>before</th><th>after</th></tr>{rows}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _flags(report: Report) -> str:
    return "".join(f"<p><strong>Note.</strong> {escape(flag)}</p>" for flag in report.flags)


def _steps(report: Report) -> str:
    rows = "".join(f"<dt>{escape(step.name)}</dt><dd>{escape(step.reason)}</dd>" for step in report.plan.steps)
    return f"<h2>What was done, and why</h2><dl>{rows}</dl>"


def _plots(report: Report) -> list[str]:
    spectra = {"before": _mid(report.before.spectrum), "after": _mid(report.after.spectrum)}
    if report.reference:
        spectra["reference"] = _mid(report.reference)
    plots = [_plot("Spectrum of the mid signal, dB by third octave (the scale is logarithmic in Hz)", spectra)]
    if report.traces is None:
        return plots
    found, step = report.traces, report.traces.step_s
    loudness = {
        "before": [(n * step, v) for n, v in enumerate(found.loudness_before_lufs) if v is not None],
        "after": [(n * step, v) for n, v in enumerate(found.loudness_after_lufs) if v is not None],
    }
    taken = {"limiter": [(n * step, v) for n, v in enumerate(found.gain_reduction_db)]}
    costs = {"peak to loudness": [(cost.reached_lufs, cost.peak_to_loudness_lu) for cost in found.costs]}
    return [
        *plots,
        _plot("Short-term loudness, LUFS over seconds", loudness),
        _plot("Gain reduction, dB over seconds", taken),
        _plot("Cost of loudness: peak-to-loudness ratio, LU over LUFS", costs),
    ]


def _mid(bands: Sequence[BandLevel]) -> Points:
    """Band numbers instead of Hz: a third of an octave is one step."""
    return [(number, band.mid_db) for number, band in enumerate(bands) if band.mid_db > -120]


def _plot(title: str, lines: Mapping[str, Points]) -> str:
    """Lines over a shared, labelled box; the key is part of the caption."""
    everything = [point for line in lines.values() for point in line]
    if len(everything) < 2:
        return ""
    left, right = min(x for x, _ in everything), max(x for x, _ in everything)
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    width, height = max(right - left, 1e-9), max(high - low, 1e-9)

    def place(x: float, y: float) -> str:
        across = _MARGIN + (x - left) / width * (_WIDTH - 2 * _MARGIN)
        return f"{across:.1f},{_MARGIN / 2 + (high - y) / height * (_HEIGHT - _MARGIN):.1f}"

    drawn = "".join(
        f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(place(*p) for p in line)}"/>'
        for colour, line in zip(_COLOURS, lines.values(), strict=False)
    )
    key = ", ".join(
        f'<span style="color:{colour}">{escape(name)}</span>' for colour, name in zip(_COLOURS, lines, strict=False)
    )
    ends = (
        f'<text x="2" y="{_MARGIN / 2 + 4}">{high:.1f}</text><text x="2" y="{_HEIGHT - _MARGIN / 2}">{low:.1f}</text>'
        f'<text x="{_MARGIN}" y="{_HEIGHT - 4}">{left:g}</text>'
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 4}" text-anchor="end">{right:g}</text>'
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{drawn}{ends}</svg>'
        f"<figcaption>{escape(title)}: {key}</figcaption></figure>"
    )


def _costs(report: Report) -> str:
    if report.traces is None:
        return ""
    rows = "".join(
        f"<tr><td>{cost.loudness_lufs:.0f} LUFS</td><td>{cost.reached_lufs:.1f}</td>"
        f"<td>{cost.peak_to_loudness_lu:.1f}</td><td>{cost.limited_percent:.1f} %</td></tr>"
        for cost in report.traces.costs
    )
    head = "<tr><th>asked for</th><th>reached</th><th>peak to loudness, LU</th><th>time limited over 1 dB</th></tr>"
    return f"<h2>What other loudnesses would cost</h2><table>{head}{rows}</table>"


def _platforms(after: Measurements) -> str:
    if after.integrated_lufs is None:
        return ""
    rows = "".join(
        f"<tr><td>{escape(target.title)}</td><td>{target.loudness_lufs:.0f} LUFS</td>"
        f"<td>{_turned(target.loudness_lufs - after.integrated_lufs)}</td></tr>"
        for target in presets().targets.values()
    )
    head = "<tr><th>where</th><th>plays at</th><th>what it does to this master</th></tr>"
    return f"<h2>What each platform will do</h2><table>{head}{rows}</table>"


def _turned(change_db: float) -> str:
    if abs(change_db) < 0.25:
        return "plays it as it is"
    return f"turns it {'up' if change_db > 0 else 'down'} by {abs(change_db):.1f} dB"
