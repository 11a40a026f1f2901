"""Line charts as inline SVG, coloured by the style sheet of the page. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 12, 40
#: A point is marked for the pointer at most this often along a line.
_MOST_MARKS = 130
_TICKS = 5

Point = tuple[float, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A series of points; a point without a value is a gap. ``color`` is one of the style sheet's, from 1 on."""

    name: str
    color: int
    points: Sequence[Point]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """``ticks`` are positions with their texts; without them they are round numbers. ``log`` is for values above 0."""

    label: str
    ticks: Sequence[tuple[float, str]] = ()
    log: bool = False


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Draw lines over one pair of axes, with a legend if there are several. Values start at 0 unless logarithmic."""
    drawn = [line for line in lines if any(value is not None for _, value in line.points)]
    if not drawn:
        return f"<figure><figcaption>{escape(title)}</figcaption><p class='none'>No answers.</p></figure>"
    xs = [at for line in drawn for at, _ in line.points]
    ys = [value for line in drawn for _, value in line.points if value is not None]
    across = _Scale.of(xs, x, _LEFT, _WIDTH - _RIGHT, from_zero=False)
    up = _Scale.of(ys, y, _HEIGHT - _BOTTOM, _TOP, from_zero=not y.log)
    parts = [
        *(_horizontal(up.place(at), text) for at, text in up.ticks),
        *(_tick(across.place(at), text) for at, text in across.ticks),
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 4}">{escape(x.label)}</text>',
        *(_line(line, across, up, x, y) for line in drawn),
    ]
    legend = "".join(f'<span class="key c{line.color}">{escape(line.name)}</span>' for line in drawn)
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(y.label)}</small></figcaption>"
        f"{f'<div class=legend>{legend}</div>' if len(drawn) > 1 else ''}"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def number(value: float) -> str:
    """Format a value for a label: about three significant digits, thousands apart."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def of(cls, values: Sequence[float], axis: Axis, start: float, end: float, *, from_zero: bool) -> "_Scale":
        low, high = (0.0 if from_zero else min(values)), max(values)
        if axis.log:
            # Whole decades would leave most of a chart empty.
            low, high = _round_down(low), _round_up(high)
            if high <= low:
                high = low * 10
            ticks = axis.ticks or _log_ticks(low, high)
        else:
            high = high if high > low else low + 1
            step = _round_up((high - low) / _TICKS)
            if not axis.ticks and from_zero:
                high = ceil(high / step - 1e-9) * step
            first = ceil(low / step - 1e-9)
            steps = range(first, floor(high / step + 1e-9) + 1)
            ticks = axis.ticks or [(number_ * step, number(number_ * step)) for number_ in steps]
        return cls(low, high, start, end, axis.log, [(at, text) for at, text in ticks if low <= at <= high])

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = log10(low), log10(high), log10(max(value, self.low))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def _line(line: Line, across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    path, pen_down = [], False
    marks = []
    every = max(1, len(line.points) // _MOST_MARKS)
    x_text = dict(x.ticks).get
    for index, (at, value) in enumerate(line.points):
        if value is None:
            pen_down = False
            continue
        left, top = across.place(at), up.place(value)
        path.append(f"{'L' if pen_down else 'M'}{left:.1f} {top:.1f}")
        pen_down = True
        if index % every == 0:
            tip = f"{line.name}: {number(value)} ({y.label}) at {x_text(at) or number(at)} ({x.label})"
            marks.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="6"><title>{escape(tip)}</title></circle>')
    dots = _dots(line, across, up)
    return f'<g class="c{line.color}"><path d="{" ".join(path)}"/>{dots}{"".join(marks)}</g>'


def _dots(line: Line, across: _Scale, up: _Scale) -> str:
    """Draw the points themselves where they are few."""
    if len(line.points) > 30:
        return ""
    placed = [(across.place(at), up.place(value)) for at, value in line.points if value is not None]
    return "".join(f'<circle class="dot" cx="{left:.1f}" cy="{top:.1f}" r="3"/>' for left, top in placed)


def _horizontal(top: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{top:.1f}" y2="{top:.1f}"/>'
        f'<text class="y" x="{_LEFT - 6}" y="{top + 4:.1f}">{escape(text)}</text>'
    )


def _tick(left: float, text: str) -> str:
    return f'<text class="x" x="{left:.1f}" y="{_HEIGHT - _BOTTOM + 16}">{escape(text)}</text>'


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [(factor * 10.0**decade, number(factor * 10.0**decade)) for decade in decades for factor in factors]


def _round(value: float, choose: Callable[[list[float]], float]) -> float:
    decade = 10.0 ** floor(log10(value))
    return choose([factor * decade for factor in (0.5, 1, 2, 5, 10)])


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 and so on."""
    return _round(value, lambda options: min(each for each in options if each >= value * (1 - 1e-9)))


def _round_down(value: float) -> float:
    return _round(value, lambda options: max(each for each in options if each <= value * (1 + 1e-9)))
