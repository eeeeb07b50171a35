"""The asyncio shell around one session. It passes events to the session's state
machine, performs the effects and keeps one timer. Nothing else calls the machine.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from voicechat.audio.speech_level import VoiceLevels
from voicechat.dialects.base import Dialect, Frame, Reaction, Tell
from voicechat.dialects.drawings import Drawing
from voicechat.dialects.tool_servers import ToolNews, ToolRequest
from voicechat.errors import Fault
from voicechat.processes.forked import ForkServer
from voicechat.providers.interfaces import (
    ChatModel,
    ChatRequest,
    SpeechRecognizer,
    SpeechSynthesizer,
)
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.audio_input import AudioInput, Detector
from voicechat.runtime.consulting.search_ahead import SearchAhead
from voicechat.runtime.drawing import SessionDrawings
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.error_location import location_of
from voicechat.runtime.loop_lateness import Lateness
from voicechat.runtime.outbox import Outbox
from voicechat.runtime.prompt_preparation import PromptPreparation
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.runtime.recording import SessionRecorder
from voicechat.runtime.reply_task import ReplyTask
from voicechat.runtime.session_tools import OpenToolServer, SessionTools, no_tool_servers
from voicechat.runtime.socket import Socket
from voicechat.runtime.socket_reader import SocketReader
from voicechat.runtime.tasks import SessionTasks
from voicechat.session.effects import (
    AdoptReply,
    Close,
    ContinueReply,
    DropRecognition,
    Effect,
    FinishRecognition,
    FinishSpeech,
    OpenRecognition,
    PrepareReply,
    RecordMetric,
    RouteAudio,
    Send,
    SessionMetric,
    Speak,
    StartReply,
    StopReply,
)
from voicechat.session.events import (
    AudioReceived,
    AudioSent,
    Disconnected,
    Event,
    Faulted,
    Opened,
    ReplyEvent,
    Ticked,
    Transcribed,
)
from voicechat.session.limits import SessionLimits, earliest_ms
from voicechat.session.machine import Machine
from voicechat.session.notices import (
    Done,
    Ended,
    Ending,
    Interrupted,
    Notice,
    Recognised,
    Rejected,
    ReplyAudio,
    ReplyNotice,
)

logger = logging.getLogger(__name__)

RELEASE_S = 1.0
"""Seconds after the end of a session within which all its resources are released
(promised in the documentation).
"""
PARTIALS_APART_S = 0.5
"""Interval between partial transcripts to a client while the event loop is late. While
it is very late, none are sent.
"""
LATE_IN_HAND_S = 0.6
"""While the event loop is late, a reply is made at most 0.6 s ahead of its playback,
plus one piece.
"""
HELD_MS = 10_000
"""Bound of the paced audio waiting for its time. Beyond it the synthesiser waits, too.
"""
_ROUNDING_S = 1e-6
"""Tolerance for rounding errors in sums of seconds. Without it half of all timers would
fire a millisecond early and be set twice.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionProviders:
    """The services of a conversation."""

    recognizer: SpeechRecognizer
    models: Callable[[str], ChatModel]
    """Returns the chat model of a name. The empty name means the connection's own
    model.
    """
    synthesizer: SpeechSynthesizer
    threads: EncodingThreads
    levels: VoiceLevels = field(default_factory=VoiceLevels)
    """The measured levels of the synthesiser's voices."""
    decoding: ForkServer | None = None
    """Processes for compressed input. None: compressed input is refused."""
    detector: Detector | None = None
    """Voice detection. None: there is no hands-free mode."""
    reads: ReadScheduler = field(default_factory=ReadScheduler)
    """Decides when the socket is read while the event loop is late."""
    tool_servers: OpenToolServer = no_tool_servers
    """Opens tool servers that the client names."""
    drawings: SessionDrawings | None = None
    """Draws the pictures that the chat model asks for; None: there is no such tool."""
    knowledge: SearchAhead | None = None
    """Searches what the agent knows while the user speaks. None: there is nothing to
    search.
    """


class Conversation:
    """One session on one socket."""

    def __init__(
        self,
        machine: Machine,
        dialect: Dialect,
        socket: Socket,
        services: SessionProviders,
        *,
        limits: SessionLimits,
        observe: Callable[[SessionMetric], None],
        hand_over: Callable[[str, str], None] = lambda _call_id, _transfer_to: None,
        recording: SessionRecorder | None = None,
    ) -> None:
        """``observe`` is called with facts for metrics. ``hand_over`` is called before
        the connection is closed, with the call (see ``Dialect.call_id``) and where it
        continues. Neither may raise or wait. ``recording`` None: nothing is recorded.
        """
        self._machine = machine
        self._dialect = dialect
        self._socket = socket
        self._cast = services
        self._limits = limits
        self._observe = observe
        self._hand_over = hand_over
        self._recording = recording
        self._loop = asyncio.get_running_loop()
        self._opened_s = self._loop.time()
        self._events: deque[Event] = deque()
        self._busy = False
        self._timer: asyncio.Handle | None = None
        self._due_ms: int | None = None
        """The machine's deadline. Any event may change it."""
        self._timer_s = 0.0
        """Loop time at which the timer fires. Its handle may not tell: for a time in
        the past, uvloop returns a handle without a time.
        """
        self._tasks = SessionTasks(on_fault=lambda: self.post(Faulted()))
        self._preparation = PromptPreparation(self._tasks.spawn)
        self._outbox = Outbox(socket, limits, self._post_of_outbox)
        self._audio = AudioInput(
            services.recognizer,
            limits=limits,
            now_ms=self._clock_ms,
            post=self.post,
            tasks=self._tasks,
            decoding=services.decoding,
            detector=services.detector,
            replying=lambda: bool(self._replies),
        )
        if recording is not None and recording.takes_audio:
            self._audio.recording = recording
        self._reader = SocketReader(
            socket,
            dialect,
            self._audio,
            self.post,
            self._react,
            self._clock_ms,
            self._outbox.answer_ping,
            services.reads,
        )
        self._knowledge = services.knowledge
        self._tools = SessionTools(services.tool_servers, self._tasks.spawn, self._hear_tools)
        if services.drawings is not None:
            services.drawings.attach(self._tasks.spawn, self._show, shows=dialect.shows_drawings)
        self._reads = services.reads
        self._partial_s = 0.0
        """Loop time at which a partial transcript was last written."""
        self._replies: dict[int, tuple[ReplyTask, asyncio.Task[None]]] = {}
        self._drained = asyncio.Event()
        self._drained.set()
        """Cleared by a task that waits until less audio is held back."""
        self._faulted = False
        self._over = False
        """Whether posted events are ignored because the session has ended."""

    @property
    def now_ms(self) -> int:
        """Milliseconds since the connection was opened."""
        return self._clock_ms()

    @property
    def announces_end(self) -> bool:
        """See ``Dialect.announces_end``."""
        return self._dialect.announces_end

    def _clock_ms(self) -> int:
        return int((self._loop.time() - self._opened_s + _ROUNDING_S) * 1000)

    def post(self, event: Event) -> None:
        """Pass ``event`` to the session and perform the effects. Never waits. A call
        made while an event is being handled queues its event.
        """
        if self._over:
            return
        if self._reads.late and not self._busy and not isinstance(event, ReplyEvent):
            self._audio.note_unread()  # before a decision about the user's silence
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        while self._events:
            self._handle(self._events.popleft())
        self._busy = False
        if not self._drained.is_set() and self._machine.held_ms < HELD_MS:
            self._drained.set()
        self._due_ms = self._machine.deadline_ms()
        self._set_timer()

    async def run(self) -> None:
        """Serve the connection until it is closed from either side. Cancelling drops
        it.

        On return all resources of the session are released: its tasks, recogniser
        streams and buffers within ``RELEASE_S``, and the socket within ``close_ms``
        more.
        """
        for reaction in self._dialect.open(self.now_ms):
            self._react(reaction)
        self.post(Opened())
        writer = self._tasks.spawn(self._outbox.run(), "session-writer")
        reader = self._tasks.spawn(self._reader.run(), "session-reader")
        pinger = self._tasks.spawn(self._keep_alive(), "session-pinger")
        try:
            await asyncio.wait([writer, reader], return_when=asyncio.FIRST_COMPLETED)
            pinger.cancel()
            if self._outbox.closing:  # last frames and closing handshake: bounded
                await asyncio.wait([writer])
        finally:
            self.post(Disconnected())
            if self._recording is not None:
                self._recording.close(self.now_ms)
            if self._timer is not None:
                self._timer.cancel()
            self._audio.close()
            self._reads.forget(self._socket)
            searches = () if self._knowledge is None else (self._knowledge.aclose(),)
            await asyncio.gather(self._tasks.close(RELEASE_S), self._tools.aclose(), *searches)
            self._socket.abort()
            self._release()

    def _release(self) -> None:
        """Drop the references to the parts, which refer to this object.

        A reference cycle is freed only by a full garbage collection, which is rare:
        after thousands of sessions the cycles would take hundreds of megabytes.
        """
        self._over = True
        self._replies.clear()
        self._audio.release()
        if self._cast.drawings is not None:
            self._cast.drawings.detach()
        del self._reader, self._outbox, self._audio, self._tasks, self._tools
        del self._preparation

    def abort(self) -> None:
        """Drop the connection; ``run`` returns within ``RELEASE_S``."""
        self._socket.abort()

    # --- effects ----------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        try:
            now_ms = self._clock_ms()
            effects = self._machine.receive(event, now_ms)
            if self._recording is not None:
                self._recording.note(event, now_ms, effects)
            for effect in effects:
                self._perform(effect)
            if self._knowledge is not None and isinstance(event, Transcribed):
                self._knowledge.note_words(self._machine.words_so_far)
        except Exception as error:  # noqa: BLE001 - the one place around a session
            # A bug in the server. It ends only this session, with a last message of the
            # dialect.
            logger.error(
                "handling %s failed: %s at %s",
                type(event).__name__,
                type(error).__name__,
                location_of(error),
            )
            if self._faulted:
                ended = Ended(Ending.FAULT, "internal error", Fault.INTERNAL)
                self._outbox.close(self._dialect.close_code(ended), ended.message)
            else:
                self._faulted = True
                self._events.append(Faulted())

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._notify(effect.notice)
            case RouteAudio():
                self._audio.route(effect)
            case OpenRecognition():
                self._audio.open(effect)
            case FinishRecognition():
                self._audio.finish(effect.stream)
            case DropRecognition():
                self._audio.streams.drop(effect.stream)
            case PrepareReply():
                self._prepare(effect)
            case StartReply():
                self._start(effect)
            case AdoptReply() | ContinueReply() | Speak() | FinishSpeech():
                if effect.reply in self._replies:
                    self._replies[effect.reply][0].perform(effect)
            case StopReply():
                if effect.reply in self._replies:
                    self._replies[effect.reply][1].cancel()
                self._outbox.flush_reply(effect.reply)
                self._audio.reply_stopped()
            case Close():
                ended = effect.ended
                self._outbox.close(self._dialect.close_code(ended), ended.message)
            case RecordMetric():
                self._observe(effect.metric)
            case _:
                assert_never(effect)

    def _prepare(self, effect: PrepareReply) -> None:
        model = as_provider(self._cast.models(effect.chat.model))
        if model.can_prepare:
            request = ChatRequest(messages=effect.messages, options=effect.chat.options)
            self._preparation.prepare(model, request)

    def _start(self, effect: StartReply) -> None:
        reply = ReplyTask(
            effect,
            self._cast.models(effect.chat.model),
            self._cast.synthesizer,
            threads=self._cast.threads,
            post=self.post,
            room=self._room,
            give_way=self._give_way,
            levels=self._cast.levels,
        )
        if self._audio.echo is not None:
            reply.on_speech = self._audio.echo.reply_made
        if self._recording is not None and self._recording.takes_audio:
            reply.on_sound = self._recording.spoken
        work = reply.run() if effect.scripted else self._preparation.then(reply.run)
        task = self._tasks.spawn(work, f"reply-{effect.reply}")
        self._replies[effect.reply] = (reply, task)
        # A finished reply's encoder takes half a megabyte.
        task.add_done_callback(lambda _: self._replies.pop(effect.reply, None))

    # --- the dialect ------------------------------------------------------------------

    def _react(self, reaction: Reaction) -> None:
        """Carry out a reaction of the dialect to a message of its client or to its
        timer.
        """
        if self._over:
            return
        if isinstance(reaction, Tell):
            self._outbox.put_frames((reaction.frame,), urgent=True)
            self._set_timer()  # the dialect may have set a wake-up time
        elif isinstance(reaction, AudioReceived):
            self._audio.push(reaction.payload)
        elif isinstance(reaction, ToolRequest):
            self._tools.perform(reaction)
        else:
            self.post(reaction)

    def _hear_tools(self, news: ToolNews) -> None:
        """Pass a tool server's answer to the dialect."""
        for reaction in self._dialect.hear_tools(news, self._clock_ms()):
            self._react(reaction)

    def _show(self, drawing: Drawing) -> None:
        """Pass a picture to the dialect."""
        for reaction in self._dialect.show_drawing(drawing, self._clock_ms()):
            self._react(reaction)

    def _notify(self, notice: Notice) -> None:
        """Have the dialect write a notice. Its resulting commands are handled after
        this event.
        """
        if self._reads.late and isinstance(notice, Recognised) and self._may_skip(notice):
            return
        if isinstance(notice, Ended) and notice.transfer_to:
            self._hand_over(self._dialect.call_id, notice.transfer_to)
        reply = notice.reply if isinstance(notice, ReplyNotice) else 0
        frames: list[Frame] = []
        kept = False
        for reaction in self._dialect.notify(notice, self._clock_ms()):
            if isinstance(reaction, Tell):
                if reaction.kept is not kept and frames:
                    self._outbox.put_frames(frames, reply=0 if kept else reply)
                    frames = []
                kept = reaction.kept
                frames.append(reaction.frame)
            elif isinstance(reaction, ToolRequest):
                self._tools.perform(reaction)
            elif not isinstance(reaction, AudioReceived):
                self._events.append(reaction)
        audio_until_ms = notice.end_ms if isinstance(notice, ReplyAudio) else None
        if not frames and audio_until_ms is None:
            return
        self._outbox.put_frames(
            frames,
            reply=reply if audio_until_ms is not None or not kept else 0,
            audio_until_ms=audio_until_ms,
            # Not for the answer to a commit: the recogniser must receive the end of the
            # audio first.
            urgent=isinstance(notice, Done | Rejected | Interrupted),
        )

    def _may_skip(self, notice: Recognised) -> bool:
        """Return whether a partial transcript is not written because the event loop is
        late. The session has received it, and the next partial or the final transcript
        contains its words.
        """
        if notice.transcript.final:
            return False
        if self._reads.lateness.level is Lateness.VERY_LATE:
            return True
        now_s = self._loop.time()
        if now_s - self._partial_s < PARTIALS_APART_S:
            return True
        self._partial_s = now_s
        return False

    def _post_of_outbox(self, event: Event) -> None:
        if isinstance(event, AudioSent):
            self._audio.reply_sent(event)
        self.post(event)

    async def _give_way(self, in_hand_s: float) -> bool:
        """While the event loop is late, wait until a reply whose listener has
        ``in_hand_s`` of audio left may continue. Returns whether the loop was late.
        """
        if not self._reads.late:
            return False
        if in_hand_s > LATE_IN_HAND_S:
            await asyncio.sleep(in_hand_s - LATE_IN_HAND_S)
        await self._reads.speech.wait(min(in_hand_s, LATE_IN_HAND_S))
        return True

    async def _room(self) -> None:
        """Wait until there is room for the next piece of a reply."""
        await self._outbox.room()
        while self._machine.held_ms >= HELD_MS:
            self._drained.clear()
            await self._drained.wait()

    # --- the tasks of the session -----------------------------------------------------

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_ms / 1000)
            try:
                await self._socket.ping()
            except ConnectionError:
                return  # the reader or the writer sees the same and ends the session

    def _deadline_ms(self) -> int | None:
        due_ms, wake_ms = self._due_ms, self._dialect.deadline_ms()
        return due_ms if wake_ms is None else earliest_ms(due_ms, wake_ms)

    def _set_timer(self) -> None:
        """Keep one timer. A later deadline does not change it: when it fires, the
        session's deadline is checked again.
        """
        deadline_ms = self._deadline_ms()
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
        wake_ms = self._dialect.deadline_ms()
        if wake_ms is not None and self.now_ms >= wake_ms:
            for reaction in self._dialect.wake(self.now_ms):
                self._react(reaction)
        deadline_ms = self._deadline_ms()
        if deadline_ms is None:
            return
        if self.now_ms >= deadline_ms:
            self.post(Ticked(self._audio.take_arrival_ms()))
        elif self._timer is None:
            # Timers may fire within a millisecond before their time, and the deadline
            # may have moved.
            self._start_timer(self._opened_s + (deadline_ms + 1) / 1000)

    def _start_timer(self, when_s: float) -> None:
        self._timer, self._timer_s = self._loop.call_at(when_s, self._on_timer), when_s
