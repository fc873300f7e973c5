"""Plots as SVG, written by hand: bars with their spread, and lines over a logarithmic axis. Knows values and labels,
and nothing of where they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

FONT = "font-family='system-ui, sans-serif'"
COLOURS = ("#d9480f", "#1971c2", "#2f9e44", "#9c36b5", "#0c8599", "#e8a100", "#868e96", "#c2255c", "#5c3d2e")

COLUMNS = 2
PANEL_WIDTH = 460
LABEL_WIDTH = 130
VALUE_WIDTH = 60
BAR_HEIGHT = 15
TITLE_HEIGHT = 30
GAP = 16
LINES_HEIGHT = 260
LEGEND_ROW = 16


@dataclass(frozen=True)
class Bar:
    """One value with its spread."""

    label: str
    value: float
    low: float
    high: float
    colour: int


@dataclass(frozen=True)
class Line:
    """Values at each of a panel's places."""

    label: str
    values: tuple[float, ...]
    colour: int


def bars(title: str, panels: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """A page of panels of horizontal bars, each panel with a scale of its own."""
    return _page(title, [(name, _bars_height(its), _bars(its)) for name, its in panels])


def lines(title: str, places: Sequence[str], panels: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """A page of panels of lines over a logarithmic axis."""
    return _page(title, [(name, LINES_HEIGHT + len(its) * LEGEND_ROW, _lines(places, its)) for name, its in panels])


def _page(title: str, panels: Sequence[tuple[str, int, list[str]]]) -> str:
    parts = [_text(GAP, 24, title, size=16, weight="bold")]
    top = 40
    for row in (panels[index : index + COLUMNS] for index in range(0, len(panels), COLUMNS)):
        for column, (name, _, content) in enumerate(row):
            parts.append(f"<g transform='translate({GAP + column * (PANEL_WIDTH + GAP)},{top})'>")
            parts += [_text(0, 18, name, weight="bold"), *content, "</g>"]
        top += max(height for _, height, _ in row) + TITLE_HEIGHT + GAP
    width = 2 * GAP + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {top}' width='{width}' height='{top}'>"
    return "\n".join([head, f"<rect width='{width}' height='{top}' fill='#fff'/>", *parts, "</svg>", ""])


def _bars_height(its: Sequence[Bar]) -> int:
    return len(its) * (BAR_HEIGHT + 4)


def _bars(its: Sequence[Bar]) -> list[str]:
    room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    most = max(max(bar.value, bar.high) for bar in its) or 1.0
    parts = []
    for index, bar in enumerate(its):
        top = TITLE_HEIGHT + index * (BAR_HEIGHT + 4)
        middle = top + BAR_HEIGHT / 2
        length, low, high = (LABEL_WIDTH + room * value / most for value in (bar.value, bar.low, bar.high))
        parts += [
            _text(LABEL_WIDTH - 6, top + 12, bar.label, anchor="end"),
            f"<rect x='{LABEL_WIDTH}' y='{top}' width='{length - LABEL_WIDTH:.1f}' height='{BAR_HEIGHT}' "
            f"fill='{_colour(bar.colour)}' fill-opacity='.75'/>",
            f"<path d='M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8' "
            "stroke='#212529' fill='none'/>",
            _text(LABEL_WIDTH + room + 6, top + 12, _short(bar.value)),
        ]
    return parts


def _lines(places: Sequence[str], its: Sequence[Line]) -> list[str]:
    positive = [value for line in its for value in line.values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 1e-9)
    left, right, top, bottom = 76, PANEL_WIDTH - 20, TITLE_HEIGHT, LINES_HEIGHT - 10

    def x(index: int) -> float:
        return left + (right - left) * index / max(1, len(places) - 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (math.log10(max(value, 10.0**low)) - low) / max(1, high - low)

    parts = []
    for power in range(low, high + 1):
        height = y(10.0**power)
        parts.append(f"<path d='M{left} {height:.1f}H{right}' stroke='#dee2e6'/>")
        parts.append(_text(left - 6, height + 4, _short(10.0**power), anchor="end"))
    parts += [_text(x(index), bottom + 16, name, anchor="middle") for index, name in enumerate(places)]
    for row, line in enumerate(its):
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(line.values))
        legend = LINES_HEIGHT + TITLE_HEIGHT - 8 + row * LEGEND_ROW
        parts += [
            f"<polyline points='{points}' fill='none' stroke='{_colour(line.colour)}' stroke-width='2'/>",
            f"<path d='M{left} {legend - 4}h18' stroke='{_colour(line.colour)}' stroke-width='3'/>",
            _text(left + 24, legend, line.label),
        ]
    return parts


def _text(x: float, y: float, text: str, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    style = f"{FONT} font-size='{size}' font-weight='{weight}' text-anchor='{anchor}' fill='#212529'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
