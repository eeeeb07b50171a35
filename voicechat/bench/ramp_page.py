"""Renders a ramp as one self-contained HTML page: a table and three plots."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from voicechat.bench.figures import Spread
from voicechat.bench.ramp import LATE_AUDIO_P99_MS, OVERHEAD_P99_MS, Ramp, RampStep

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 240, 56, 32, 12
_COLOURS = ("#1f5fa8", "#c0392b")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ccc; }
th:last-child, td:last-child { text-align: left; }
tr.void td { color: #888; } tr.broken td { color: #a02020; }
svg { max-width: 100%; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
"""
COLUMNS = (
    "sessions",
    "turns",
    "overhead p50",
    "p99 ms",
    "audio late p99 ms",
    "cores",
    "MiB / session",
    "verdict",
)


_Scale: TypeAlias = Callable[[float, float], tuple[float, float]]
"""Maps a chart's values to its coordinates."""


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    points: tuple[tuple[float, float], ...]


def row_of(step: RampStep) -> tuple[str, ...]:
    """Format a step as a row of the table; see ``COLUMNS``."""
    found = step.figures
    return (
        str(found.workload.sessions),
        str(found.turns),
        _shown(_p50(found.overhead)),
        _shown(_p99(found.overhead)),
        _shown(_p99(found.late_audio)),
        _shown(_cores(step), 2),
        _shown(found.mib_per_session, 2),
        step.verdict,
    )


def page_of(ramp: Ramp) -> str:
    """Render the page. Void steps appear in the table but not in the plots."""
    work = ramp.steps[0].figures.workload
    how = "hands-free" if work.hands_free else "push to talk"
    title = f"voicechat holds {ramp.holds} conversations here"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    rows = "".join(_row(step) for step in ramp.steps)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style>"
        f"<h1>{title}</h1><p>{html.escape(ramp.ended)}. "
        f"{how}, {work.seconds:g} s each, {html.escape(work.output)}; "
        f"{html.escape(str(ramp.steps[0].figures.cores))}.</p>"
        f"<table><tr>{head}</tr>{rows}</table>{''.join(_charts(ramp))}</html>\n"
    )


def _row(step: RampStep) -> str:
    kind = "void" if step.void else "broken" if step.broken else "holds"
    return (
        f'<tr class="{kind}">'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row_of(step))
        + "</tr>"
    )


def _charts(ramp: Ramp) -> list[str]:
    steps = [step for step in ramp.steps if not step.void]

    def line(name: str, values: Sequence[float | None]) -> _Line:
        pairs = zip((float(step.figures.workload.sessions) for step in steps), values, strict=True)
        return _Line(name, tuple((x, y) for x, y in pairs if y is not None))

    found = [step.figures for step in steps]
    overhead = (
        line("p50", [_p50(each.overhead) for each in found]),
        line("p99", [_p99(each.overhead) for each in found]),
    )
    late = line("p99", [_p99(each.late_audio) for each in found])
    return [
        _chart("What the engine adds to the first audio, ms", overhead, OVERHEAD_P99_MS),
        _chart("How late audio is for a player without a buffer, ms", (late,), LATE_AUDIO_P99_MS),
        _chart(
            "The server's CPU, cores", (line("server", [_cores(step) for step in steps]),), None
        ),
    ]


def _chart(title: str, lines: Sequence[_Line], limit: float | None) -> str:
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    most_x = max(x for x, _ in points)
    most_y = max([y for _, y in points] + [limit or 0.0]) * 1.1 or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = (_WIDTH - _LEFT - 60) * x / most_x
        return _LEFT + across, _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * y / most_y

    parts = [_axis(at, most_x, most_y)]
    if limit is not None:
        (x0, y0), (x1, _) = at(0, limit), at(most_x, limit)
        parts.append(
            f'<path d="M{x0:.1f} {y0:.1f}H{x1:.1f}" stroke="#999" stroke-dasharray="4 4"/>'
        )
    parts += [
        _drawn(line, colour, at)
        for line, colour in zip(lines, _COLOURS, strict=False)
        if line.points
    ]
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    return f"<h2>{html.escape(title)}</h2>{svg}"


def _axis(at: _Scale, most_x: float, most_y: float) -> str:
    (left, bottom), (right, top) = at(0, 0), at(most_x, most_y)
    marks = [
        f'<path d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}" fill="none" stroke="#444"/>'
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = at(0, most_y * share)
        x, _ = at(most_x * share, 0)
        marks.append(
            f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">'
            f"{most_y * share:.3g}</text>"
        )
        marks.append(
            f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">'
            f"{most_x * share:.4g}</text>"
        )
    return "".join(marks)


def _drawn(line: _Line, colour: str, at: _Scale) -> str:
    places = [at(x, y) for x, y in line.points]
    path = "".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(places))
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)
    x, y = places[-1]
    start = f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" style="fill:{colour}">'
    curve = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return f"{curve}{dots}{start}{html.escape(line.name)}</text>"


def _cores(step: RampStep) -> float | None:
    per_minute = step.figures.cpu_s_per_session_minute
    return None if per_minute is None else per_minute * step.figures.workload.sessions / 60


def _p50(found: Spread | None) -> float | None:
    return None if found is None else found.p50_ms


def _p99(found: Spread | None) -> float | None:
    return None if found is None else found.p99_ms


def _shown(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
