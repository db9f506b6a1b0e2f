"""Plots: what a line says can be read off its points, and the documentation's are made by the engine of today."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from mastering.report.plots import Plot, svg
from ops import plots

_SVG = "{http://www.w3.org/2000/svg}"


def _plot(lines: dict[str, list[tuple[float, float]]], *, hertz: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(svg(Plot("A <title>", "x", "y", lines, "Told.", hertz=hertz)))  # noqa: S314 - ours


def _points(drawn: ElementTree.Element, name: str) -> list[tuple[float, float]]:
    lines = [line for line in drawn.iter(f"{_SVG}polyline") if line.get("class") == name]
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", lines[0].get("points", ""))]


def test_a_straight_line_is_drawn_straight_and_rises_with_its_values() -> None:
    points = _points(_plot({"up": [(0, 0), (5, 50), (10, 100)]}), "s0")
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] > points[1][1] > points[2][1]
    assert points[1] == pytest.approx(((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2), abs=0.1)


def test_an_axis_in_hertz_gives_each_octave_the_same_room() -> None:
    points = _points(_plot({"level": [(100, 0), (200, 1), (400, 2), (800, 3)]}, hertz=True), "s0")
    steps = [after[0] - before[0] for before, after in pairwise(points)]
    assert max(steps) - min(steps) < 0.2


def test_every_line_is_named_and_a_reader_is_told_the_title() -> None:
    drawn = _plot({"one": [(0, 0), (1, 1)], "two": [(0, 1), (1, 0)]})
    texts = [text.text for text in drawn.iter(f"{_SVG}text")]
    assert "one" in texts
    assert "two" in texts
    assert drawn.get("aria-label") == "A <title>. Told."


def test_a_plot_without_a_line_is_no_plot() -> None:
    assert svg(Plot("t", "x", "y", {"alone": [(0, 0)]}, "")) == ""


def test_the_documentations_plots_are_what_the_engine_draws_now() -> None:
    assert plots.stale() == []
