"""The asyncio shell around one session: events in, effects performed, one timer. The only writer of its machine."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import ChatModel, SpeechRecognizer, SpeechSynthesizer
from voicechat.runtime.audio_input import AudioInput, Detector
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.faults import where
from voicechat.runtime.outbox import Outbox
from voicechat.runtime.reading import Reader
from voicechat.runtime.reply_task import ReplyTask
from voicechat.runtime.socket import Socket
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import (
    AdoptReply,
    Close,
    ContinueReply,
    DropRecognition,
    Effect,
    Fact,
    FinishRecognition,
    FinishSpeech,
    Observe,
    OpenRecognition,
    RouteAudio,
    Send,
    Speak,
    StartReply,
    StopReply,
)
from voicechat.session.events import (
    AudioSent,
    Disconnected,
    Event,
    Faulted,
    Opened,
    Ticked,
)
from voicechat.session.limits import SessionLimits
from voicechat.session.machine import Machine
from voicechat.wire.dialect import Dialect

logger = logging.getLogger(__name__)

RELEASE_S = 1.0
"""Within so long after the end of a session everything of it is released (contract)."""
HELD_MS = 10_000
"""Paced audio that waits for its time; past it the synthesiser waits too."""
_ROUNDING_S = 1e-6
"""What sums of seconds may come short by: without it half of all timers would be a millisecond early, and set twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who serves a conversation."""

    recognizer: SpeechRecognizer
    models: Callable[[str], ChatModel]
    """The chat model of a name; the empty name is the connection's own."""
    synthesizer: SpeechSynthesizer
    threads: EncodingThreads
    decoding: ForkServer | None = None
    """Processes for compressed input; without them it is refused."""
    detector: Detector | None = None
    """Voice detection; without it there is no hands-free mode."""


class Conversation:
    """One session on one socket."""

    def __init__(
        self,
        machine: Machine,
        dialect: Dialect,
        socket: Socket,
        services: Cast,
        *,
        limits: SessionLimits,
        observe: Callable[[Fact], None],
    ) -> None:
        """``observe`` is told facts for metrics; it must not raise and not wait."""
        self._machine = machine
        self._socket = socket
        self._cast = services
        self._limits = limits
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._opened_s = self._loop.time()
        self._events: deque[Event] = deque()
        self._busy = False
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0
        """When it fires. Handles do not say: uvloop gives one without a time for a time that has come."""
        self._tasks = SessionTasks(on_fault=lambda: self.post(Faulted()))
        self._outbox = Outbox(socket, dialect.encode, limits, self._post_of_outbox)
        self._audio = AudioInput(
            services.recognizer,
            limits=limits,
            now_ms=lambda: self.now_ms,
            post=self.post,
            tasks=self._tasks,
            decoding=services.decoding,
            detector=services.detector,
        )
        self._reader = Reader(socket, dialect, self._audio, self.post, self._outbox.answer_ping)
        self._turn: tuple[ReplyTask, asyncio.Task[None]] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        """Cleared by who waits until less audio is held back."""
        self._faulted = False
        self._over = False
        """Nothing that is posted is heard any more."""

    @property
    def now_ms(self) -> int:
        """Milliseconds since the connection was opened."""
        return int((self._loop.time() - self._opened_s + _ROUNDING_S) * 1000)

    def post(self, event: Event) -> None:
        """Let the session take ``event``. Runs to completion and never waits; called from within, it queues."""
        if self._over:
            return
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        while self._events:
            self._handle(self._events.popleft())
        self._busy = False
        if not self._drained.is_set() and self._machine.held_ms < HELD_MS:
            self._drained.set()
        self._set_timer()

    async def run(self) -> None:
        """Serve the connection until it is closed from either side. Cancelling drops it.

        Afterwards nothing of the session is left: its tasks, recogniser streams and buffers are released within
        ``RELEASE_S``, the closing of the socket within ``close_ms`` more.
        """
        self.post(Opened())
        writer = self._tasks.spawn(self._outbox.run(), "session-writer")
        reader = self._tasks.spawn(self._reader.run(), "session-reader")
        pinger = self._tasks.spawn(self._keep_alive(), "session-pinger")
        try:
            await asyncio.wait([writer, reader], return_when=asyncio.FIRST_COMPLETED)
            pinger.cancel()
            if self._outbox.closing:  # the last words and the closing handshake, which are bounded
                await asyncio.wait([writer])
        finally:
            self.post(Disconnected())
            if self._timer is not None:
                self._timer.cancel()
            self._audio.close()
            await self._tasks.close(RELEASE_S)
            self._socket.abort()
            self._release()

    def _release(self) -> None:
        """Let go of the parts, which refer to this object.

        What refers to itself waits for a full collection of garbage, which is rare: after thousands
        of sessions that would be hundreds of megabytes.
        """
        self._over = True
        self._turn = None
        self._audio.release()
        del self._reader, self._outbox, self._audio, self._tasks

    def abort(self) -> None:
        """Drop the connection; ``run`` returns within ``RELEASE_S``."""
        self._socket.abort()

    # --- effects -----------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        try:
            for effect in self._machine.receive(event, self.now_ms):
                self._perform(effect)
        except Exception as error:  # noqa: BLE001 - the one place around a session
            # A bug of ours. It ends this session, with the contract's last words; the server goes on.
            logger.error("handling %s failed: %s at %s", type(event).__name__, type(error).__name__, where(error))
            if self._faulted:
                self._outbox.close(1011, "internal error")
            else:
                self._faulted = True
                self._events.append(Faulted())

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._outbox.put(effect.message)
            case RouteAudio():
                self._audio.route(effect)
            case OpenRecognition():
                self._audio.open(effect)
            case FinishRecognition():
                self._audio.finish(effect.stream)
            case DropRecognition():
                self._audio.streams.drop(effect.stream)
            case StartReply():
                self._start(effect)
            case AdoptReply() | ContinueReply() | Speak() | FinishSpeech():
                if self._turn is not None:
                    self._direct(self._turn[0], effect)
            case StopReply():
                if self._turn is not None:
                    self._turn[1].cancel()
                self._outbox.flush(effect.reply)
                self._audio.reply_stopped()
            case Close():
                self._outbox.close(effect.code, effect.reason)
            case Observe():
                self._observe(effect.fact)
            case _:
                assert_never(effect)

    @staticmethod
    def _direct(turn: ReplyTask, effect: AdoptReply | ContinueReply | Speak | FinishSpeech) -> None:
        match effect:
            case Speak():
                turn.speak(effect.sentence, effect.text)
            case FinishSpeech():
                turn.finish_speech()
            case AdoptReply():
                turn.adopt()
            case ContinueReply():
                turn.go_on(effect)

    def _start(self, effect: StartReply) -> None:
        turn = ReplyTask(
            effect,
            self._cast.models(effect.chat.model),
            self._cast.synthesizer,
            threads=self._cast.threads,
            post=self.post,
            room=self._room,
        )
        if self._audio.echo is not None:
            turn.on_speech = self._audio.echo.reply_made
        task = self._tasks.spawn(turn.run(), f"reply-{effect.reply}")
        self._turn = (turn, task)
        task.add_done_callback(self._forget_turn)

    def _forget_turn(self, task: asyncio.Task[None]) -> None:
        """A finished reply's encoder weighs half a megabyte."""
        if self._turn is not None and self._turn[1] is task:
            self._turn = None

    def _post_of_outbox(self, event: Event) -> None:
        if isinstance(event, AudioSent):
            self._audio.reply_sent(event)
        self.post(event)

    async def _room(self) -> None:
        await self._outbox.room()
        while self._machine.held_ms >= HELD_MS:
            self._drained.clear()
            await self._drained.wait()

    # --- the tasks of the session ------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_ms / 1000)
            try:
                await self._socket.ping()
            except ConnectionError:
                return  # the reader or the writer sees the same and ends the session

    def _set_timer(self) -> None:
        """Keep one timer. A later deadline leaves it alone: when it fires, the session is asked again."""
        deadline_ms = self._machine.deadline_ms()
        if deadline_ms is None:
            return
        when_s = self._opened_s + deadline_ms / 1000
        if self._timer is not None:
            if self._timer_s <= when_s:
                return
            self._timer.cancel()
        self._start_timer(when_s)

    def _on_timer(self) -> None:
        self._timer = None
        self._audio.report()
        deadline_ms = self._machine.deadline_ms()
        if deadline_ms is None:
            return
        if self.now_ms >= deadline_ms:
            self.post(Ticked())
        else:
            # Timers may fire within a millisecond before their time, and the deadline may have moved.
            self._start_timer(self._opened_s + (deadline_ms + 1) / 1000)

    def _start_timer(self, when_s: float) -> None:
        self._timer, self._timer_s = self._loop.call_at(when_s, self._on_timer), when_s
