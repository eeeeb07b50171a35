"""The lines of a record: JSON, one line for each event of the session, with the effects
that the session returned for it.

The first line is ``{"begin": {...}}``: the version of this format, and with ``setup``
everything that the session knew at its beginning. Then, in order:

- ``{"t": ms, "event": NAME, "data": {...}, "effects": [...]}``: an event of
  ``session.events`` or a command of ``session.commands``, by the name of its class,
  with its fields. ``t`` is the session's clock: milliseconds since the connection was
  opened. An effect is ``[NAME, {...}]``; ``Send`` and ``RecordMetric`` are ``["Send",
  NAME, {...}]`` with the class of the notice or metric event.
- ``{"t": ms, "gap": {"until": ms, "entries": n}}``: that many entries are missing,
  because they could not be written in time.
- ``{"t": ms, "audio_from": ms}``: the audio of the user that arrived from this time of
  the session on begins at that time of the connection's audio.
- ``{"t": ms, "end": {}}``: the last line of a record that was not cut off.

Audio packets are replaced by their sizes, prompts that are only prepared by a digest,
and the dialect's ``cause`` of a command by a name: ``c1`` is the first cause of the
record, and an effect with the same cause has the same name.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from enum import Enum
from typing import Any, TypeAlias, get_args

import orjson
from pydantic import TypeAdapter

from voicechat.errors import Fault
from voicechat.records.setup import SessionSetup
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session import notices as nt
from voicechat.session.commands import Command

FORMAT_VERSION = 1
MAX_CAUSES = 256
"""Causes that are remembered. An effect with an older one gets a new name."""
_OPTIONS = orjson.OPT_NON_STR_KEYS
_EVENTS: Mapping[str, type[Any]] = {kind.__name__: kind for kind in get_args(ev.Event)}

JsonObject: TypeAlias = dict[str, Any]


class Causes:
    """Names the causes of one record, in the order in which they are first written."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[object, str]] = OrderedDict()
        self._count = 0

    def name_of(self, cause: object) -> str | None:
        """Return the name of a cause; None for None. Identity decides, because a cause
        may change.
        """
        if cause is None:
            return None
        known = self._known.get(id(cause))
        if known is None:
            self._count += 1
            known = (cause, f"c{self._count}")
            self._known[id(cause)] = known  # holds the object, so that its id stays its own
            if len(self._known) > MAX_CAUSES:
                self._known.popitem(last=False)
        return known[1]


def write_event(
    at_ms: int, event: ev.Event, effects: Sequence[ef.Effect], causes: Causes
) -> JsonObject:
    """Return an event and its effects as a line that `line_of` writes."""
    line: JsonObject = {"t": at_ms, "event": type(event).__name__}
    line["data"] = _plain(event, causes)
    line["effects"] = [_written_effect(effect, causes) for effect in effects]
    return line


def line_of(content: object) -> bytes:
    """Write a line, with its line break. Never raises: what JSON cannot express is
    replaced by the name of its type.
    """
    try:
        return orjson.dumps(content, _unusual, _OPTIONS) + b"\n"
    except TypeError:  # an integer of more than 64 bits, or nested too deeply
        return orjson.dumps(_bounded(content), _unusual, _OPTIONS) + b"\n"


def read_line(line: bytes) -> JsonObject:
    """Read a line. Raises ``ValueError`` if it is not one."""
    content = orjson.loads(line)
    if not isinstance(content, dict):
        raise ValueError("a line of a record is a JSON object")
    return content


def as_written(content: object) -> Any:
    """Return what a reader gets of ``content``."""
    return orjson.loads(line_of(content))


class CauseNames:
    """Gives a replayed session the causes of a record, each as one object."""

    def __init__(self) -> None:
        self._objects: dict[str, object] = {}

    def cause(self, name: str | None) -> object:
        """Return the cause of that name; None for None."""
        return None if name is None else self._objects.setdefault(name, [name])


def read_event(line: JsonObject, names: CauseNames) -> ev.Event:
    """Return the event of a line. Raises ``ValueError`` if the line holds none that
    this version knows.
    """
    name, data = str(line.get("event")), dict(line.get("data") or {})
    kind = _EVENTS.get(name)
    if kind is None:
        raise ValueError(f"{name!r} is no event of this version")
    if kind is ev.SpeechSynthesized:
        data["packets"] = tuple(bytes(size) for size in data["packets"])
        return ev.SpeechSynthesized(**data)
    if kind is ev.ReplyFailed:
        return ev.ReplyFailed(data["reply"], Fault(data["fault"]), data["message"])
    cause = data.pop("cause", None)
    event: ev.Event = _adapter(kind).validate_python(data)
    if isinstance(event, Command):
        return replace(event, cause=names.cause(cause))
    return event


def write_setup(setup: SessionSetup) -> JsonObject:
    """Return a setup as the first line holds it."""
    written: JsonObject = as_written(setup)
    return written


def read_setup(written: JsonObject) -> SessionSetup:
    """Return a setup of a first line. Raises ``ValueError``."""
    setup: SessionSetup = _adapter(SessionSetup).validate_python(written)
    return setup


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _written_effect(effect: ef.Effect, causes: Causes) -> list[object]:
    name = type(effect).__name__
    match effect:
        case ef.Send(inner):
            return [name, type(inner).__name__, _plain(inner, causes)]
        case ef.RecordMetric(metric):
            return [name, type(metric).__name__, metric]
        case ef.PrepareReply():
            digest = hashlib.sha256(line_of(effect)).hexdigest()
            return [name, {"prompt_sha256": digest}]
        case ef.Close(ended):
            return [name, {"ended": _plain(ended, causes)}]
        case _:
            return [name, effect]


def _plain(value: ev.Event | nt.Notice, causes: Causes) -> object:
    match value:
        case ev.SpeechSynthesized() | nt.ReplyAudio():
            return {
                "reply": value.reply,
                "sentence": value.sentence,
                "packets": [len(packet) for packet in value.packets],
                "end_ms": value.end_ms,
            }
        case ev.ReplyFailed():
            return replace(value, cause=None)
        case Command() | nt.Done() | nt.Rejected() | nt.TurnCommitted() | nt.ReplyBegun():
            return _named(value, causes)
        case nt.Ended():
            return _named(value, causes)
        case _:
            return value


def _named(value: Any, causes: Causes) -> object:
    return value if value.cause is None else replace(value, cause=causes.name_of(value.cause))


def _unusual(value: object) -> object:
    match value:
        case Mapping():
            return dict(value)
        case Set():
            return sorted(map(str, value))
        case bytes():
            return len(value)
        case _:
            return f"<{type(value).__name__}>"


def _bounded(value: object, depth: int = 0) -> object:
    """Return ``value`` with numbers that fit, and without what is nested deeper than
    100.
    """
    if depth > 100:
        return "<nested too deeply>"
    if isinstance(value, bool | str | float | Enum) or value is None:
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else float(value)
    if isinstance(value, Mapping):
        return {str(key): _bounded(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(each, depth + 1) for each in value]
    slots = getattr(type(value), "__dataclass_fields__", None)
    if slots is not None:
        return {name: _bounded(getattr(value, name), depth + 1) for name in slots}
    return _unusual(value)
