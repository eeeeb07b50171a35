"""The recognition socket as a value machine: audio in, results out, until ``BYE``."""

from voicechat.errors import Status
from voicechat.session import events as ev
from voicechat.session.deadlines import earliest_ms
from voicechat.session.effects import (
    Answered,
    Close,
    Effect,
    LateDropped,
    LateKind,
    Observe,
    Request,
    Route,
    RouteAudio,
    Send,
    SessionClosed,
)
from voicechat.session.hearing import Hearing
from voicechat.session.limits import SessionLimits
from voicechat.session.presence import Presence
from voicechat.session.vocabulary import InputSettings


class Dictation:
    """One recognition stream of a client: see ``Machine``.

    A recogniser that fails is replaced, as in a conversation; when no replacement works, the connection is closed,
    because this protocol has no message for errors.
    """

    def __init__(self, settings: InputSettings | None = None, limits: SessionLimits | None = None) -> None:
        """``settings`` come from the connection's query and do not change."""
        self._settings = settings or InputSettings()
        self._limits = limits or SessionLimits()
        self._hearing = Hearing()
        self._closed = False
        self._finishing_since_ms: int | None = None
        self._presence = Presence(self._limits)
        self._now_ms = 0
        self._routed = (Route.AWAIT, self._settings, 0)

    @property
    def held_ms(self) -> int:
        """See ``Machine.held_ms``: nothing is ever spoken here."""
        return 0

    def receive(self, event: ev.Event, now_ms: int) -> list[Effect]:
        """See ``Machine.receive``."""
        if self._closed:
            return []
        self._now_ms = now_ms
        return [*self._take(event, now_ms), *self._settle_route(now_ms)]

    def _settle_route(self, now_ms: int) -> list[Effect]:
        over = self._closed or self._finishing_since_ms is not None
        route, stream = (Route.DROP, 0) if over else self._hearing.route(now_ms)
        wanted = (route, self._settings, stream)
        if wanted == self._routed:
            return []
        self._routed = wanted
        return [RouteAudio(*wanted)]

    def _take(self, event: ev.Event, now_ms: int) -> list[Effect]:
        match event:
            case ev.Transcribed() | ev.RecognitionEnded() | ev.RecognitionFailed():
                if not self._hearing.is_current(event.stream):
                    return [Observe(LateDropped(LateKind.STREAM))]
                return self._on_recognition(event, now_ms)
            case ev.RecognitionDelayed():
                self._hearing.delay(event.stream, event.by_ms)
                return []
            case ev.Disconnected():
                self._closed = True
                return [*self._hearing.drop_awaited(), *self._hearing.drop_gathering()]
            case ev.WriteStalled():
                return self._close(1013, event.message)
            case ev.AccessEnded():
                return self._close(1008, event.message)
            case ev.Faulted():
                return self._close(1011, "internal error")
            case ev.DrainRequested():
                return self._close(1012, "the server restarts; connect again")
            case ev.PressureChanged():
                return []  # nothing here is ever in vain
            case ev.Ticked():
                return self._on_tick(now_ms)
            case _:
                self._presence.note(event, now_ms)
                return self._on_client(event, now_ms)

    def deadline_ms(self) -> int | None:
        """See ``Machine.deadline_ms``."""
        if self._closed:
            return None
        deadline_ms = self._presence.deadline_ms(must_speak=self._must_speak)
        if self._finishing_since_ms is not None:
            return min(deadline_ms, self._finishing_since_ms + self._limits.transcript_ms + self._hearing.grace_ms)
        return earliest_ms(deadline_ms, self._hearing.deadline_ms(self._now_ms))

    @property
    def _must_speak(self) -> bool:
        return self._finishing_since_ms is None and not self._settings.heartbeat

    def _on_client(self, event: ev.Event, now_ms: int) -> list[Effect]:
        match event:
            case ev.Opened():
                self._presence.spoke(now_ms)
                return [Send(Answered(Request.OPEN))]
            case ev.AudioStarted() if self._finishing_since_ms is None:
                return self._hearing.open(self._settings, now_ms)
            case ev.FinishRequested() if self._finishing_since_ms is None:
                self._finishing_since_ms = now_ms
                return self._hearing.finish() or self._close(1000)
            case ev.MalformedReceived():
                return self._close(1003, event.message)
            case _:
                return []

    def _on_recognition(
        self, event: ev.Transcribed | ev.RecognitionEnded | ev.RecognitionFailed, now_ms: int
    ) -> list[Effect]:
        awaited = self._hearing.is_awaited(event.stream)
        if isinstance(event, ev.Transcribed):
            if event.transcript.text.strip():
                self._presence.spoke(now_ms)
            return self._hearing.take(event.stream, event.transcript, hold=False)
        if isinstance(event, ev.RecognitionEnded):
            self._hearing.end(event.stream)
            return self._close(1000) if awaited else []
        if awaited:
            again = self._hearing.replace_awaited(event, self._settings)
        else:
            again = self._hearing.replace_gathering(event, self._settings, now_ms) if event.retryable else []
        if again and self._hearing.alive:
            return again
        return [*again, *self._close(1003 if event.status in _CLIENTS_FAULT else 1011, event.message)]

    def _on_tick(self, now_ms: int) -> list[Effect]:
        absent = self._presence.absent(now_ms, must_speak=self._must_speak)
        if absent:
            return self._close(1000, absent)
        patience_ms = self._limits.transcript_ms + self._hearing.grace_ms
        if self._finishing_since_ms is not None and now_ms >= self._finishing_since_ms + patience_ms:
            return self._close(1011, "the recogniser did not answer in time")
        return []

    def _close(self, code: int, reason: str = "") -> list[Effect]:
        self._closed = True
        dropped = [*self._hearing.drop_awaited(), *self._hearing.drop_gathering()]
        return [*dropped, Close(code, reason), Observe(SessionClosed(code))]


_CLIENTS_FAULT = frozenset({Status.UNDECODABLE_AUDIO, Status.UNSUPPORTED_FORMAT, Status.TOO_LARGE})
