"""What a client of the recognition socket may ask for in the query of its request."""

from collections.abc import Mapping
from dataclasses import dataclass

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, parse_input_format
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import shown
from voicechat.session.types import InputSettings

MAX_SESSION_CHARS = 128
"""Longest name of a resumable session."""
_MAX_RECEIVED = 10**9
_DEFAULTS = InputSettings(format="pcm")
_BOOLEANS = {"": False, "false": False, "0": False, "true": True, "1": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What a client asked for in the query of its request."""

    input: InputSettings = _DEFAULTS
    word_objects: bool = False
    """True: words are objects, not the document's strings."""
    session: str = ""
    """Name of a resumable session; empty: the connection cannot be resumed."""
    received: int | None = None
    """The number of results that a returning client reports to have; None: it reports
    none.
    """


def parse_query(query: Mapping[str, str]) -> StreamOptions:
    """Read the query parameters. A missing or empty one takes its default, an unknown
    one is ignored.

    Raises ``RemoteProtocolError``, whose message begins with the offending parameter.
    """
    rate_hz = _integer(
        query,
        "sample_rate",
        default=_DEFAULTS.sample_rate_hz,
        low=LOWEST_RATE_HZ,
        high=HIGHEST_RATE_HZ,
    )
    name = query.get("format") or _DEFAULTS.format
    parse_input_format(name, rate_hz)
    return StreamOptions(
        input=InputSettings(
            format=name, sample_rate_hz=rate_hz, silence_allowed=_boolean(query, "heartbeat")
        ),
        word_objects=_word_objects(query),
        session=_session(query),
        received=_integer(query, "received", default=0, low=0, high=_MAX_RECEIVED)
        if query.get("received")
        else None,
    )


def _word_objects(query: Mapping[str, str]) -> bool:
    words = query.get("words", "")
    if words not in ("", "json"):
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"words: {shown(words)} is not json")
    return words == "json"


def _session(query: Mapping[str, str]) -> str:
    session = query.get("session", "")
    if len(session) > MAX_SESSION_CHARS or not session.isprintable():
        allowed = f"up to {MAX_SESSION_CHARS} printable characters"
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"session: {shown(session)} is not {allowed}"
        )
    return session


def _boolean(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "")
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{name}: {shown(text)} is not true or false"
        )
    return value


def _integer(query: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    text = query.get(name) or str(default)
    # Twelve digits are enough for every bound here; a client must not make the server
    # convert longer numbers, which is slow.
    digits = text.isascii() and text.isdecimal() and len(text) <= 12
    if not digits or not low <= int(text) <= high:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{name}: {shown(text)} is not between {low} and {high}"
        )
    return int(text)
