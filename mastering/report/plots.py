"""Line plots as SVG, drawn by hand: axes, grid and key, readable in light and dark, on paper and by a screen reader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 34, 42
_DASHES = ("", "", "7 4", "2 4", "9 3 2 3", "4 6")
STYLE = """
.plot{--ink:#22262c;--grid:#22262c26;--a:#767c86;--b:#0b5fd0;--c:#a14a00;--d:#6a3fb5;--e:#00704a;--f:#b00050}
.plot text{font:13px system-ui,sans-serif;fill:var(--ink)}.plot .grid{stroke:var(--grid)}
.plot polyline{fill:none;stroke-width:2;stroke-linejoin:round}
.plot .s0{stroke:var(--a)}.plot .s1{stroke:var(--b)}.plot .s2{stroke:var(--c)}
.plot .s3{stroke:var(--d)}.plot .s4{stroke:var(--e)}.plot .s5{stroke:var(--f)}
@media(prefers-color-scheme:dark){.plot{--ink:#e6e8eb;--grid:#e6e8eb2e;--a:#9aa1ac;--b:#6aa8ff;--c:#f0a35c;--d:#c0a3ff;
--e:#5cc79b;--f:#ff85b8}}
"""


@dataclass(frozen=True)
class Plot:
    """Lines over shared axes. `hertz` makes the horizontal axis logarithmic; `description` is for screen readers."""

    title: str
    across: str
    up: str
    lines: Mapping[str, Points]
    description: str
    hertz: bool = False
    least_span: float = 6.0


def svg(plot: Plot, *, alone: bool = False) -> str:
    """The plot; nothing where there is no line to draw. `alone` makes it a file of its own."""
    lines = {name: line for name, line in plot.lines.items() if len(line) > 1}
    if not lines:
        return ""
    box = _Box.around(plot, [point for line in lines.values() for point in line])
    drawn = "".join(_line(box, number, line) for number, line in enumerate(lines.values()))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
    style = f"<style>{STYLE}.ground{{fill:#fff}}@media(prefers-color-scheme:dark){{.ground{{fill:#16191d}}}}</style>"
    ground = f'{style}<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}"/>' if alone else ""
    title = f"{plot.title}. {plot.description}"
    return f'{head} aria-label="{escape(title)}">{ground}{_axes(box, plot)}{drawn}{_key(list(lines))}</svg>'


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    low: float
    high: float
    hertz: bool

    @classmethod
    def around(cls, plot: Plot, points: Points) -> _Box:
        low, high = min(y for _, y in points), max(y for _, y in points)
        spare = max(0.0, plot.least_span - (high - low)) / 2 + 0.03 * (high - low)
        across = [x for x, _ in points]
        return cls(min(across), max(max(across), min(across) + 1e-9), low - spare, high + spare, plot.hertz)

    def x(self, value: float) -> float:
        if self.hertz:
            share = math.log(value / self.left) / math.log(self.right / self.left)
        else:
            share = (value - self.left) / (self.right - self.left)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (self.high - value) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)


def _line(box: _Box, number: int, line: Points) -> str:
    dash = f' stroke-dasharray="{_DASHES[number]}"' if number < len(_DASHES) and _DASHES[number] else ""
    points = " ".join(f"{box.x(x):.1f},{box.y(y):.1f}" for x, y in line)
    return f'<polyline class="s{number % 6}"{dash} points="{points}"/>'


def _axes(box: _Box, plot: Plot) -> str:
    parts = []
    for value in _ticks(box.low, box.high, 6):
        y = box.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{plain_number(value)}</text>')
    whole = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
    for value in [hz for hz in whole if box.left <= hz <= box.right] if box.hertz else _ticks(box.left, box.right, 8):
        x = box.x(value)
        name = f"{value / 1000:g}k" if box.hertz and value >= 1000 else plain_number(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{name}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">{escape(plot.across)}</text>')
    parts.append(f'<text x="4" y="16">{escape(plot.up)}</text>')
    return "".join(parts)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between `low` and `high`."""
    rough = (high - low) / most
    scale = 10 ** math.floor(math.log10(rough))
    step = next(size * scale for size in (1, 2, 5, 10) if size * scale >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def plain_number(value: float) -> str:
    """The number without trailing zeros, with a minus sign and not a hyphen."""
    return f"{round(value, 6):g}".replace("-", "−")


def _key(names: Sequence[str]) -> str:
    """Right-aligned, a sample of each line before its name; dashes tell them apart without colour."""
    parts, right = [], float(_WIDTH - _RIGHT)
    for number, name in reversed(list(enumerate(names))):
        left = right - 7.2 * len(name)
        dash = f' stroke-dasharray="{_DASHES[number]}"' if number < len(_DASHES) and _DASHES[number] else ""
        parts.append(f'<polyline class="s{number % 6}"{dash} points="{left - 26:.0f},12 {left - 4:.0f},12"/>')
        parts.append(f'<text x="{left:.0f}" y="16">{escape(name)}</text>')
        right = left - 38
    return "".join(parts)
