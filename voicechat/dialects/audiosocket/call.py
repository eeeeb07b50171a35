"""One call by AudioSocket: audio both ways, keys, and the end.

Asterisk neither buffers audio for the server nor reports what it has played. So frames
of 20 ms are sent one by one, at multiples of 20 ms since the first, and an interruption
only empties the queue. While the agent is silent the frames hold silence: Asterisk
hangs up a call on which nothing comes for two seconds.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from typing_extensions import override

from voicechat.audio.formats import Container
from voicechat.dialects.audiosocket.frames import (
    DTMF,
    ERROR,
    HANGUP,
    ID,
    ID_BYTES,
    NARROW,
    RATES_HZ,
)
from voicechat.dialects.base import Dialect, Frame, Reaction, Tell
from voicechat.dialects.telephony import FRAME_MS, LineFormat, SilentFailures
from voicechat.session import commands as cmd
from voicechat.session import notices as nt
from voicechat.session.events import AudioReceived
from voicechat.session.types import Settings

LEAD_MS = 300
"""How far ahead of playback the session releases audio. It waits here and not in a
network, so it only has to bridge a busy moment of the server.
"""
CAUGHT_UP_MS = 200
"""Frames that are late by at most this much are sent together; after a longer delay the
clock starts over.
"""
RATE_WAIT_MS = 200
"""How long to wait for the first audio, which tells the rate. A channel that sends none
gets the configured rate.
"""


class AudioSocketCall(Dialect):
    """One call."""

    def __init__(
        self,
        settings: Settings,
        rate_hz: int = 8_000,
        apology: Callable[[int], bytes] | None = None,
    ) -> None:
        """``settings`` are the session's. ``rate_hz`` is the rate of the kind 0x10,
        which old versions of Asterisk use for any rate. ``apology`` is the
        connection's.
        """
        self._apology = apology
        self._failures = SilentFailures()
        self._settings = settings
        self._narrow_hz = rate_hz
        self._kind = NARROW
        self._heard = -1
        """The kind of the caller's last audio."""
        self._begun = False
        self._opened_ms = 0
        self._frames: deque[bytes] = deque()
        """Frames that wait for their time."""
        self._origin_ms = 0
        """When the first frame was sent."""
        self._sent = 0
        self._over = False

    @override
    def open(self, now_ms: int) -> Iterable[Reaction]:
        self._opened_ms = self._origin_ms = now_ms
        return ()

    # --- up ---------------------------------------------------------------------------

    @override
    def receive(self, frame: Frame, now_ms: int) -> Iterable[Reaction]:
        if not isinstance(frame, bytes) or not frame or self._over:
            return (cmd.Alive(),)
        return self._react(frame[0], frame[1:])

    def _react(self, kind: int, payload: bytes) -> Iterator[Reaction]:
        if kind in RATES_HZ and payload:
            if not self._begun:
                yield from self._begin(kind)
            yield from self._read_as(kind)
            yield AudioReceived(payload)  # which is a sign of life by itself
            return
        yield cmd.Alive()
        match kind:
            case _ if kind == ID and len(payload) == ID_BYTES:
                self.call_id = str(uuid.UUID(bytes=payload))
            case _ if kind == DTMF:
                yield cmd.PressKey(payload[:2].decode("latin-1"))
            case _ if kind in (HANGUP, ERROR):
                self._over = True
                yield cmd.HangUp()
            case _:
                pass

    def _begin(self, kind: int) -> Iterator[Reaction]:
        """The call begins with audio of that kind, and the server answers in it."""
        self._begun, self._kind = True, kind
        voice = replace(self._settings.voice, format=self._line(kind).output)
        self._settings = replace(self._settings, voice=voice)
        yield from self._read_as(kind)
        yield cmd.Begin()

    def _read_as(self, kind: int) -> Iterator[Reaction]:
        """Read the caller's audio as that kind from now on. It may change later."""
        if kind == self._heard:
            return
        self._heard = kind
        line = self._line(kind)
        if self._settings.input != line.input:
            self._settings = replace(self._settings, input=line.input)
            yield cmd.Configure(self._settings)

    def _line(self, kind: int) -> LineFormat:
        rate_hz = self._narrow_hz if kind == NARROW else RATES_HZ[kind]
        return LineFormat(Container.PCM, rate_hz)

    # --- down -------------------------------------------------------------------------

    @override
    def notify(self, notice: nt.Notice, now_ms: int) -> Iterable[Reaction]:
        if self._failures.happens(notice) and self._apology is not None:
            line = self._line(self._kind)
            self._frames += line.packets(self._apology(line.rate_hz))
        match notice:
            case nt.ReplyAudio(_, packets):
                self._frames += packets
            case nt.ReplyCut():
                self._frames.clear()
            case nt.Ended():
                self._over = True
                return (Tell(bytes((HANGUP,))),)
            case _:
                pass
        return ()

    @override
    def deadline_ms(self) -> int | None:
        return None if self._over else self._due_ms

    @property
    def _due_ms(self) -> int:
        return self._origin_ms + self._sent * FRAME_MS

    @override
    def wake(self, now_ms: int) -> Iterable[Reaction]:
        reactions: list[Reaction] = []
        if not self._begun and now_ms >= self._opened_ms + RATE_WAIT_MS:
            reactions += self._begin(NARROW)
        if now_ms - self._due_ms > CAUGHT_UP_MS:
            self._origin_ms, self._sent = now_ms, 0
        while self._due_ms <= now_ms:
            self._sent += 1
            reactions.append(Tell(bytes((self._kind,)) + self._next_frame()))
        return reactions

    def _next_frame(self) -> bytes:
        if self._frames:
            return self._frames.popleft()
        return bytes(self._line(self._kind).frame_bytes)
