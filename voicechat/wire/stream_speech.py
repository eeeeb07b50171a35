"""The recognition socket of the original document: binary audio up, results down, ``BYE`` to finish.

Nothing but results and the ready message is ever sent: a failure is told by closing the connection.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, parse_input_format
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import shown, write_json
from voicechat.session.effects import (
    Answered,
    ClientMessage,
    ErrorReported,
    LatencyMeasured,
    Recognised,
    ReplyAudio,
    ReplyAudioFinished,
    ReplyText,
    ReplyTextFinished,
    ReplyToolCall,
    Request,
    SpeechNoticed,
    TurnCompleted,
)
from voicechat.session.events import AudioReceived, Decoded, FinishRequested, IgnorableReceived
from voicechat.session.vocabulary import InputSettings
from voicechat.wire.dialect import Dialect, Frame, Greeting
from voicechat.wire.recognition import result_text

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
    """Results that a returning client says it has; None: it does not say."""


def parse_query(query: Mapping[str, str]) -> StreamOptions:
    """Read the query parameters; a missing or empty one takes its default, an unknown one is ignored.

    Raises ``RemoteProtocolError``, whose message begins with the offending parameter.
    """
    rate_hz = _integer(query, "sample_rate", default=_DEFAULTS.sample_rate_hz, low=LOWEST_RATE_HZ, high=HIGHEST_RATE_HZ)
    name = query.get("format") or _DEFAULTS.format
    parse_input_format(name, rate_hz)
    return StreamOptions(
        input=InputSettings(format=name, sample_rate_hz=rate_hz, heartbeat=_boolean(query, "heartbeat")),
        word_objects=_word_objects(query),
        session=_session(query),
        received=_integer(query, "received", default=0, low=0, high=_MAX_RECEIVED) if query.get("received") else None,
    )


def open_dialect(greeting: Greeting) -> Dialect:
    """Open the dialect for one connection, whose query ``parse_query`` has accepted."""
    options = parse_query(greeting.query)
    return _StreamSpeech(word_objects=options.word_objects, resumable=bool(options.session))


def resumed_text(offset_bytes: int) -> str:
    """Greet the client of a resumable session: the first, and each time that it returns.

    ``offset_bytes`` is the byte of audio that is expected next.
    """
    return write_json({"status": "ok", "offset": offset_bytes})


class _StreamSpeech:
    """In a resumable session results are numbered, and ``resumed_text`` stands for the ready message."""

    bare_audio = True
    """See ``Dialect.bare_audio``."""

    def __init__(self, *, word_objects: bool, resumable: bool) -> None:
        self._word_objects = word_objects
        self._resumable = resumable
        self._results = 0

    def decode(self, frame: Frame) -> list[Decoded]:
        if isinstance(frame, bytes):
            return [AudioReceived(frame) if frame else IgnorableReceived()]
        return [FinishRequested() if frame.strip() == "BYE" else IgnorableReceived()]

    def encode(self, message: ClientMessage) -> list[Frame]:
        match message:
            case Recognised():
                self._results += 1
                number = self._results if self._resumable else None
                return [result_text(message.transcript, words_as_objects=self._word_objects, number=number)]
            case Answered(Request.OPEN, Status.OK):
                return [] if self._resumable else [write_json({"status": "ok"})]
            case (
                Answered()
                | ErrorReported()
                | LatencyMeasured()
                | ReplyAudio()
                | ReplyAudioFinished()
                | ReplyText()
                | ReplyTextFinished()
                | ReplyToolCall()
                | SpeechNoticed()
                | TurnCompleted()
            ):
                return []


def _word_objects(query: Mapping[str, str]) -> bool:
    words = query.get("words", "")
    if words not in ("", "json"):
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"words: {shown(words)} is not json")
    return words == "json"


def _session(query: Mapping[str, str]) -> str:
    session = query.get("session", "")
    if len(session) > MAX_SESSION_CHARS or not session.isprintable():
        allowed = f"up to {MAX_SESSION_CHARS} printable characters"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"session: {shown(session)} is not {allowed}")
    return session


def _boolean(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "")
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{name}: {shown(text)} is not true or false")
    return value


def _integer(query: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    text = query.get(name) or str(default)
    # Twelve digits hold every bound here; int() of more would be work that a client can ask for.
    digits = text.isascii() and text.isdecimal() and len(text) <= 12
    if not digits or not low <= int(text) <= high:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{name}: {shown(text)} is not between {low} and {high}")
    return int(text)
