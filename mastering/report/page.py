"""A report as one HTML page that needs nothing else: no script, no picture from elsewhere, plots as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from mastering.contract import BandLevel, BoardStep, Measurements, OutputFormat, PlanStep, Report
from mastering.contract.board import described
from mastering.contract.presets import Target, presets
from mastering.report.plots import STYLE, Plot, Points, plain_number, svg

_STYLE = f"""
:root{{color-scheme:light dark}}
body{{font:16px/1.5 system-ui,sans-serif;max-width:760px;margin:2rem auto;padding:0 1rem;background:#fff;color:#22262c}}
h1{{font-size:1.6rem}}h2{{font-size:1.2rem;margin:2rem 0 .5rem}}.wide{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%}}td,th{{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #8886}}
td:first-child,th:first-child{{text-align:left;font-weight:normal}}thead th{{font-weight:600}}
figure{{margin:1.5rem 0}}svg{{width:100%;height:auto;min-width:480px;display:block}}
figcaption{{font-size:.95rem;font-weight:600}}dt{{font-weight:600}}dd{{margin:0 0 .5rem}}
@media(prefers-color-scheme:dark){{body{{background:#16191d;color:#e6e8eb}}}}
{STYLE}"""
_ROWS = (
    ("Integrated loudness, LUFS", "integrated_lufs"),
    ("Highest short-term, LUFS", "max_short_term_lufs"),
    ("Loudness range, LU", "loudness_range_lu"),
    ("True peak, dBTP", "true_peak_dbtp"),
    ("Peak to loudness, LU", "peak_to_loudness_lu"),
    ("Crest, dB", "crest_db"),
    ("Correlation", "correlation"),
    ("Width, dB", "width_db"),
)


def html(report: Report) -> str:
    """The whole page."""
    parts = [
        _table("Before and after", ("", "before", "after"), _readings(report)),
        _flags(report),
        _steps(report),
        *(_figure(plot) for plot in plots(report)),
        _costs(report),
        _platforms(report.after),
        _checks(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Mastering report</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>Mastering report</h1>{''.join(parts)}"
        f"<p>Engine {escape(report.engine_version)}</p></main></body></html>\n"
    )


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<h2>{escape(title)}</h2><div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _readings(report: Report) -> list[tuple[str, str, str]]:
    return [
        (title, _number(getattr(report.before, field)), _number(getattr(report.after, field))) for title, field in _ROWS
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def _flags(report: Report) -> str:
    return "".join(f"<p><strong>Note.</strong> {escape(flag)}</p>" for flag in report.flags)


def _steps(report: Report) -> str:
    rows = "".join(
        f"<dt>{escape(step.name)}</dt><dd>{escape(step.reason)}{_processors(step)}</dd>" for step in report.plan.steps
    )
    return f"<h2>What was done, and why</h2><dl>{rows}</dl>"


def _processors(step: PlanStep) -> str:
    if not isinstance(step, BoardStep):
        return ""
    items = (f"<li>{escape(described(each))}: {escape(each.reason)}</li>" for each in step.parameters.processors)
    return f"<ul>{''.join(items)}</ul>"


def _figure(plot: Plot) -> str:
    drawn = svg(plot)
    # Wide plots scroll on a narrow screen; whoever has no pointer scrolls by the keys.
    held = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(plot.title)}, plot">{drawn}</div>'
    return f"<figure><figcaption>{escape(plot.title)}</figcaption>{held}</figure>" if drawn else ""


def plots(report: Report) -> list[Plot]:
    """Every plot that the report has the readings for."""
    spectra = {"before": _mid(report.before.spectrum), "after": _mid(report.after.spectrum)}
    for number, bands in enumerate(report.references, 1):
        spectra["reference" if len(report.references) == 1 else f"reference {number}"] = _mid(bands)
    drawn = [
        Plot(
            "Spectrum of the mid signal by third octaves, each at its own mean level",
            "Hz",
            "dB",
            spectra,
            f"Lines for {', '.join(spectra)}.",
            hertz=True,
        )
    ]
    if report.traces is None:
        return drawn
    found, step = report.traces, report.traces.step_s
    loudness = {
        "before": [(n * step, v) for n, v in enumerate(found.loudness_before_lufs) if v is not None and v > -70],
        "after": [(n * step, v) for n, v in enumerate(found.loudness_after_lufs) if v is not None and v > -70],
    }
    taken = [(n * step, v) for n, v in enumerate(found.gain_reduction_db)]
    costs = {
        "peak to loudness": [(cost.reached_lufs, cost.peak_to_loudness_lu) for cost in found.costs],
        "loudness range": [
            (cost.reached_lufs, cost.loudness_range_lu) for cost in found.costs if cost.loudness_range_lu is not None
        ],
        "mean gain reduction": [(cost.reached_lufs, cost.mean_reduction_db) for cost in found.costs],
    }
    return [
        *drawn,
        Plot("Short-term loudness", "seconds", "LUFS", loudness, "Lines for before and after."),
        Plot(
            "Gain reduction by the limiter",
            "seconds",
            "dB",
            {"limiter": taken},
            f"At most {_number(-min((v for _, v in taken), default=0.0))} dB are taken.",
        ),
        Plot(
            "Cost of loudness: what is left and what is taken at each loudness",
            "LUFS",
            "LU, dB",
            costs,
            "The numbers are in the table of costs.",
        ),
    ]


def _mid(bands: Sequence[BandLevel]) -> Points:
    """Around its own mean from 60 Hz to 12 kHz: loudness is shown elsewhere."""
    heard = [band.mid_db for band in bands if 60 <= band.centre_hz <= 12_000 and band.mid_db > -120]
    mean = float(np.mean(heard)) if heard else 0.0
    return [(band.centre_hz, band.mid_db - mean) for band in bands if band.mid_db > -120]


def _costs(report: Report) -> str:
    if report.traces is None or not report.traces.costs:
        return ""
    rows = [
        (
            f"{plain_number(cost.loudness_lufs)} LUFS",
            f"{cost.reached_lufs:.1f}".replace("-", "−"),
            f"{cost.peak_to_loudness_lu:.1f}",
            "–" if cost.loudness_range_lu is None else f"{cost.loudness_range_lu:.1f}",
            f"{cost.mean_reduction_db:.1f}",
            f"{cost.limited_percent:.1f} %",
        )
        for cost in report.traces.costs
    ]
    head = ("asked for", "reached, LUFS", "peak to loudness, LU", "range, LU", "mean reduction, dB", "over 1 dB")
    return _table("What other loudnesses would cost", head, rows)


def _platforms(after: Measurements) -> str:
    if after.integrated_lufs is None:
        return ""
    rows = [
        (target.title, f"{plain_number(target.loudness_lufs)} LUFS", _turned(target, after))
        for target in presets().targets.values()
        if target.turns != "no"
    ]
    return _table("What each platform will do", ("where", "plays at", "what it does to this master"), rows)


def _turned(target: Target, after: Measurements) -> str:
    change_db = target.loudness_lufs - (after.integrated_lufs or 0.0)
    if change_db > 0:
        free_db = max(0.0, target.ceiling_dbtp - after.true_peak_dbtp)
        change_db = min(change_db, free_db) if target.turns == "both" else 0.0
    if abs(change_db) < 0.25:
        return "plays it as it is"
    return f"turns it {'up' if change_db > 0 else 'down'} by {abs(change_db):.1f} dB"


def _checks(report: Report) -> str:
    rows = [
        (
            OutputFormat(check.output).label,
            _number(check.ours.integrated_lufs),
            _number(check.second.integrated_lufs),
            _number(check.ours.true_peak_dbtp),
            _number(check.second.true_peak_dbtp),
        )
        for check in report.checks
        if check.second is not None
    ]
    head = ("", "LUFS, this engine", "LUFS, pyloudnorm (De Man)", "dBTP, this engine", "dBTP, soxr at 16 x")
    return _table("Each master by two sets of meters that share no code", head, rows) if rows else ""
