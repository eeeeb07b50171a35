"""Reads a client's messages from its socket and passes them to the session."""

import asyncio
from collections.abc import Callable, Iterable

from voicechat.dialects.base import Dialect, Frame, Reaction
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.runtime.socket import Control, Ping, Socket
from voicechat.session.events import AudioReceived, Disconnected, Event

SLICE_BYTES = 64 * 1024
"""Audio decoded in one call: about 1 ms for 8 kHz input, the slowest kind. A frame may
be 16 times as long.
"""
FRAMES_IN_A_ROW = 8
"""Messages of one client in a row before other sessions get their turn."""
AUDIO_IN_A_ROW = 32
"""Audio frames of one client in a row: each takes about 10 us. A frame counts as one
more per 16 KiB.
"""
BYTES_PER_FRAME = 16 * 1024
TEXT_PER_FRAME = 8 * 1024
"""A text frame counts as one frame per 8 KiB: checking the longest takes about 10 ms.
"""
_ROW_S = 0.001
"""Frames received within 1 ms count as one burst. (loop.time() may not advance between
callbacks of one iteration.)
"""


class SocketReader:
    """Reads one socket. Audio frames are taken as they arrive, in the loop iteration
    that read them; all other messages by the task of ``run``.
    """

    def __init__(
        self,
        socket: Socket,
        dialect: Dialect,
        audio: AudioInput,
        post: Callable[[Event], None],
        react: Callable[[Reaction], None],
        now_ms: Callable[[], int],
        answer_ping: Callable[[bytes], None],
        reads: ReadScheduler,
    ) -> None:
        """``audio`` takes audio frames while it has room. ``post`` is called with
        ``Disconnected`` at the end.

        ``react`` is called with all other reactions of the dialect, ``answer_ping``
        with the payload of each ping. While the event loop is late, ``reads`` decides
        when the socket is read next.
        """
        self._socket = socket
        self._dialect = dialect
        self._audio = audio
        self._post = post
        self._react = react
        self._now_ms = now_ms
        self._answer_ping = answer_ping
        self._reads = reads
        self._lateness = reads.lateness
        self._loop = asyncio.get_running_loop()
        self._offered = False
        """Whether ``_take`` is installed: audio frames are then taken as they arrive.
        """
        self._bare_audio_came = False
        """Whether an audio frame was taken since the dialect was last called."""
        self._waiting = False
        """Whether all earlier messages have been handled, and ``run`` waits for the
        next.
        """
        self._row = 0
        self._row_began_s = 0.0

    async def run(self) -> None:
        """Read until the connection is gone."""
        self._offer()
        taken = 0
        while (frame := await self._next()) is not Control.CLOSED:
            await self._take_in(frame)
            self._offer()
            if self._audio.full:
                await self._audio.room()
            taken += 1 + (len(frame) // TEXT_PER_FRAME if isinstance(frame, str) else 0)
            if taken >= FRAMES_IN_A_ROW:
                taken = 0
                await asyncio.sleep(0)
        self._post(Disconnected())

    async def _take_in(self, frame: Frame | Control | Ping) -> None:
        if isinstance(frame, Ping):
            self._answer_ping(frame.payload)
        else:
            for reaction in self._understand(frame):
                if isinstance(reaction, AudioReceived):
                    await self._push(reaction.payload)
                else:
                    self._audio.report()
                    self._react(reaction)

    def _understand(self, frame: Frame | Control) -> Iterable[Reaction]:
        if self._bare_audio_came:
            self._bare_audio_came = False
            self._dialect.note_audio()
        if isinstance(frame, Control):
            return self._dialect.pong(self._now_ms())
        return self._dialect.receive(frame, self._now_ms())

    def _offer(self) -> None:
        """Take audio frames as they arrive, once the dialect no longer needs to see
        them.
        """
        if not self._offered and (self._dialect.bare_audio or self._dialect.framed_audio):
            self._offered = True
            self._socket.offer(self._take)

    async def _next(self) -> Frame | Control | Ping:
        self._waiting = True
        frame = await self._socket.receive()
        self._waiting = False
        return frame

    def _take(self, frame: Frame) -> bool:
        """Take a frame of audio as it arrives. Returns False if ``run`` has to receive
        it in its turn.
        """
        framed = self._dialect.framed_audio
        if not framed and not (self._dialect.bare_audio and isinstance(frame, bytes)):
            return False
        now_s = self._loop.time()
        if now_s - self._row_began_s > _ROW_S:
            self._row, self._row_began_s = 0, now_s
        self._row += 1 + len(frame) // BYTES_PER_FRAME
        # `run` receives the frame instead if an earlier message is still being handled
        # (order), if this client has had its share of the iteration (fairness), or if
        # decoding the frame or its place in the buffer would take too much.
        if (
            not self._waiting
            or self._row > AUDIO_IN_A_ROW
            or len(frame) > SLICE_BYTES
            or self._audio.full
        ):
            return False
        audio = self._dialect.audio_in(frame) if framed else frame
        if not isinstance(audio, bytes):
            return False
        self._bare_audio_came = True
        self._audio.push(audio)
        if self._lateness.late:
            self._put_off_reading()
        return True

    async def _push(self, frame: bytes) -> None:
        """Push a frame. A long one is pushed in slices, so that decoding it does not
        block the other sessions.
        """
        if self._lateness.late:
            self._put_off_reading()
        if len(frame) <= SLICE_BYTES:
            self._audio.push(frame)
            return
        for start in range(0, len(frame), SLICE_BYTES):
            self._audio.push(frame[start : start + SLICE_BYTES])
            await asyncio.sleep(0)

    def _put_off_reading(self) -> None:
        audio = self._audio
        self._reads.put_off(self._socket, silent=audio.silent, answered=audio.answered)
