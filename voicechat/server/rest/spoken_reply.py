"""One spoken reply without a conversation: the kernel's `Reply` and the runtime's
`ReplyTask`.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeAlias

from voicechat.errors import Status
from voicechat.providers.interfaces import ChatModel, SpeechSynthesizer
from voicechat.runtime.conversation import RELEASE_S
from voicechat.runtime.encoding import EncodingThreads
from voicechat.runtime.reply_task import ReplyTask
from voicechat.runtime.tasks import SessionTasks
from voicechat.server.rest.failures import ServiceFailedError, service_failed
from voicechat.session.effects import Effect, FinishSpeech, Send, Speak, StartReply
from voicechat.session.events import ReplyFailed
from voicechat.session.limits import SessionLimits
from voicechat.session.notices import Notice, ReplyAudio, ReplyAudioFinished
from voicechat.session.reply import Reply, ReplyMade

FIRST_REPLY = 1

_Queued: TypeAlias = Notice | ServiceFailedError


class SpokenReply:
    """Makes one reply with the same messages, order and sentences as in a
    conversation.
    """

    def __init__(
        self,
        start: StartReply,
        model: ChatModel,
        synthesizer: SpeechSynthesizer,
        *,
        threads: EncodingThreads,
        limits: SessionLimits,
    ) -> None:
        """``start`` must name an audio format that ``parse_output_format`` accepts."""
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()
        self._limits = limits
        self._reply = Reply(start.reply, begun_ms=0, lead_ms=None)
        self._task = ReplyTask(
            start, model, synthesizer, threads=threads, post=self._post, room=self._room
        )
        # Bounded by the reply: its text in characters, its audio by `_room`.
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue()
        self.unsent_bytes = 0
        """Audio that is made and not sent; above ``ahead_bytes`` the synthesiser waits
        (backpressure).
        """
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._timer: asyncio.TimerHandle | None = None

    async def messages(self) -> AsyncGenerator[Notice, None]:
        """Make the reply; the last message is ``ReplyAudioFinished``. To be called
        once.

        A message counts as sent when the next one is requested. Raises
        ``ServiceFailedError``. Closing the generator stops the model and the
        synthesiser within ``RELEASE_S``.
        """
        tasks = SessionTasks(on_fault=lambda: self._queue.put_nowait(_internal_error()))
        _ = tasks.spawn(self._task.run(), "spoken-reply")
        try:
            message: Notice | None = None
            while not isinstance(message, ReplyAudioFinished):
                message = await self._next()
                yield message
                if isinstance(message, ReplyAudio):
                    self._reply.clock.note_sent(message.end_ms, self._now_ms)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await tasks.close(RELEASE_S)

    @property
    def _now_ms(self) -> int:
        return int((self._loop.time() - self._begun_s) * 1000)

    async def _next(self) -> Notice:
        queued = await self._queue.get()
        if isinstance(queued, ServiceFailedError):
            raise queued
        if isinstance(queued, ReplyAudio):
            self._weigh(-len(queued.payload))
        return queued

    def _post(self, event: ReplyMade | ReplyFailed) -> None:
        """Pass an event of the reply task to the reply."""
        if not isinstance(event, ReplyFailed):
            self._perform(self._reply.handle_event(event, self._now_ms))
        elif event.cause is not None:
            self._queue.put_nowait(service_failed(event.fault, event.cause))
        else:
            self._queue.put_nowait(ServiceFailedError(Status.of(event.fault), event.message))
        self._set_timer()

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                if isinstance(effect.notice, ReplyAudio):
                    self._weigh(len(effect.notice.payload))
                self._queue.put_nowait(effect.notice)
            else:
                assert isinstance(effect, Speak | FinishSpeech), (
                    "a reply asks its task for nothing else"
                )
                self._task.perform(effect)

    def _set_timer(self) -> None:
        """Set the timer that speaks text whose sentence does not end in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self._reply.cut_unfinished_at_ms(self._limits.speakable_wait_ms)
        if due_ms is not None:
            self._timer = self._loop.call_at(self._begun_s + (due_ms + 1) / 1000, self._hurry)

    def _hurry(self) -> None:
        self._perform(self._reply.cut_unfinished(self._now_ms))
        self._set_timer()

    async def _room(self) -> None:
        await self._has_room.wait()

    def _weigh(self, change_bytes: int) -> None:
        self.unsent_bytes += change_bytes
        if self.unsent_bytes < self._limits.ahead_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()


def _internal_error() -> ServiceFailedError:
    return ServiceFailedError(Status.INTERNAL, "internal error")
