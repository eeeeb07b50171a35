"""Repeats a record: feeds its events to a new session at their times, and compares the
effects.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from voicechat.records.line_format import (
    FORMAT_VERSION,
    CauseNames,
    Causes,
    JsonObject,
    as_written,
    read_event,
    read_line,
    read_setup,
    write_event,
)
from voicechat.records.setup import SessionSetup
from voicechat.session.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first event whose effects differ."""

    line: int
    """Its line in the record, from 1."""
    at_ms: int
    event: JsonObject
    """The event's name and fields, as in its line."""
    recorded: Sequence[Any]
    """The effects of the record that are not the same, from the first one on."""
    replayed: Sequence[Any]

    def __str__(self) -> str:
        """For people."""
        name, fields = self.event["event"], self.event["data"]
        return "\n".join(
            (
                f"line {self.line}, {self.at_ms} ms: {name} {_shown(fields)}",
                *(f"  - recorded: {_shown(effect)}" for effect in self.recorded or ("nothing",)),
                *(f"  + replayed: {_shown(effect)}" for effect in self.replayed or ("nothing",)),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The outcome of a replay."""

    events: int
    """Events that had the same effects."""
    until_ms: int
    difference: Difference | None = None
    stopped: str = ""
    """Why the replay ended before the record does; empty: it does not."""


class UnreplayableError(ValueError):
    """The record cannot be replayed. The message says why."""


def replay(
    lines: Iterable[bytes],
    *,
    until_ms: int | None = None,
    open_session: type[Any] | None = None,
) -> Replayed:
    """Replay a record up to ``until_ms`` of its session.

    ``open_session`` opens the session of a ``SessionSetup``; None: the kernel of this
    version. Raises ``UnreplayableError``.
    """
    numbered = enumerate(lines, 1)
    machine = _open(next(numbered, (1, b""))[1], open_session)
    names, causes = CauseNames(), Causes()
    events, reached_ms, stopped = 0, 0, ""
    for number, text in numbered:
        try:
            line = read_line(text)
            if "gap" in line:
                stopped = f"line {number}: events are missing from here on"
                break
            if "event" not in line:
                continue
            at_ms = int(line["t"])
            if until_ms is not None and at_ms > until_ms:
                stopped = f"line {number}: it is later than {until_ms} ms"
                break
            event = read_event(line, names)
        except (ValueError, KeyError, TypeError) as error:
            stopped = f"line {number} cannot be read: {error}"
            break
        effects = machine.receive(event, at_ms)
        replayed = as_written(write_event(at_ms, event, effects, causes))["effects"]
        recorded = line.get("effects")
        if replayed != recorded:
            return Replayed(
                events=events,
                until_ms=reached_ms,
                difference=_difference(number, line, recorded or [], replayed),
            )
        events, reached_ms = events + 1, at_ms
    return Replayed(events=events, until_ms=reached_ms, stopped=stopped)


def _open(first: bytes, open_session: type[Any] | None) -> Machine:
    try:
        begin = read_line(first)["begin"]
        version, redacted = begin["version"], begin.get("redacted", False)
        if version != FORMAT_VERSION:
            raise UnreplayableError(
                f"the record has version {version}; this version reads {FORMAT_VERSION}"
            )
        if redacted:
            raise UnreplayableError(
                "the record is redacted: the session would get other words than it had"
            )
        setup = read_setup(begin["setup"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UnreplayableError):
            raise
        raise UnreplayableError(f"the first line is not that of a record: {error}") from None
    machine: Machine = SessionSetup.open(setup) if open_session is None else open_session(setup)
    return machine


def _difference(
    number: int, line: JsonObject, recorded: Sequence[Any], replayed: Sequence[Any]
) -> Difference:
    same = 0
    while same < min(len(recorded), len(replayed)) and recorded[same] == replayed[same]:
        same += 1
    return Difference(
        line=number,
        at_ms=int(line["t"]),
        event={"event": line["event"], "data": line["data"]},
        recorded=recorded[same:],
        replayed=replayed[same:],
    )


def _shown(content: object) -> str:
    return str(content) if len(str(content)) <= 500 else f"{str(content)[:500]}…"
