"""Charts: scales, gaps and numbers."""

import re

import pytest

from inferd.bench.charts import Axis, Line, line_chart, number


def _chart(points, *, log=False, **axis):
    return line_chart(
        "Title", [Line(name="a", color=1, points=points)], Axis(label="s", **axis), Axis(label="ms", log=log)
    )


def _labels(svg, kind):
    return re.findall(rf'<text class="{kind}"[^>]*>([^<]*)<', svg)


def test_round_numbers_at_the_axes():
    """From zero to the next round number; thousands are told apart."""
    svg = _chart([(0.0, 10.0), (10.0, 1840.0)])
    assert _labels(svg, "y") == ["0", "500", "1,000", "1,500", "2,000"]
    assert _labels(svg, "x") == ["0", "2", "4", "6", "8", "10"]


def test_logarithmic_axis():
    """Round numbers around the values; equal factors are equal distances."""
    svg = _chart([(0.0, 0.3), (1.0, 3.0), (2.0, 30.0)], log=True)
    assert _labels(svg, "y") == ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
    tops = [float(top) for top in re.findall(r'class="dot" cx="[0-9.]+" cy="([0-9.]+)"', svg)]
    assert tops[0] - tops[1] == pytest.approx(tops[1] - tops[2], abs=0.2)


def test_gaps_interrupt_the_line():
    """A point without a value lifts the pen."""
    svg = _chart([(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0)])
    (path,) = re.findall(r'<path d="([^"]*)"', svg)
    assert re.findall("[ML]", path) == ["M", "L", "M"]


def test_points_say_what_they_are():
    """To the pointer, with the text of their tick if there is one."""
    svg = _chart([(1.0, 2.0), (2.0, 4.0)], ticks=[(1.0, "first"), (2.0, "second")])
    assert "<title>a: 2 (ms) at first (s)</title>" in svg


@pytest.mark.parametrize("points", [[(1.0, 5.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, 5.0), (1.0, 5.0)]])
@pytest.mark.parametrize("log", [False, True])
def test_degenerate_ranges(points, log):
    """One point, or equal ones, have a place as well."""
    if log:
        points = [(at, value + 1) for at, value in points]
    assert "nan" not in _chart(points, log=log)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.034, "0.03"), (1.5, "1.5"), (10, "10"), (99.96, "100"), (12345.6, "12,346")]
)
def test_numbers(value, text):
    """Three digits or so."""
    assert number(value) == text
