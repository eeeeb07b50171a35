"""What the client says, on its way from the socket to its session."""

import asyncio
from collections.abc import Callable, Iterable

from voicechat.dialects.base import Dialect, Frame, Reaction
from voicechat.runtime.audio_input import AudioInput
from voicechat.runtime.socket import Control, Ping, Socket
from voicechat.session.events import AudioReceived, Disconnected, Event

SLICE_BYTES = 64 * 1024
"""Decoded in about a millisecond (8 kHz input, the dearest); a frame may be sixteen
times as long.
"""
FRAMES_IN_A_ROW = 8
"""Frames of one client that are taken before the other sessions get their turn."""
TEXT_PER_FRAME = 8 * 1024
"""A longer text counts as several frames: the longest is checked in some 10 ms."""
_ROW_S = 0.001
"""Frames that arrive within so long are in a row: the loop's clock may stand still
while it works.
"""


class SocketReader:
    """Reads one socket. Audio is taken as it arrives, in the same pass of the loop; the
    rest by the task of ``run``.
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
    ) -> None:
        """``audio`` takes the frames of audio, as long as it has room; ``post`` is told
        of the end.

        ``react`` is told what else the dialect wants. ``answer_ping`` is given the
        payload of each ping.
        """
        self._socket = socket
        self._dialect = dialect
        self._audio = audio
        self._post = post
        self._react = react
        self._now_ms = now_ms
        self._answer_ping = answer_ping
        self._loop = asyncio.get_running_loop()
        self._offered = False
        """Bare audio is taken as it arrives."""
        self._bare_audio_came = False
        """Since the dialect was asked last."""
        self._waiting = False
        """Everything that came before is done with."""
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
        """Once the dialect has no use for the frames of audio, take them as they
        arrive.
        """
        if self._dialect.bare_audio and not self._offered:
            self._offered = True
            self._socket.offer(self._take)

    async def _next(self) -> Frame | Control | Ping:
        self._waiting = True
        frame = await self._socket.receive()
        self._waiting = False
        return frame

    def _take(self, frame: bytes) -> bool:
        """Take a frame as it arrives; False: it has to wait its turn. See
        ``Socket.offer``.
        """
        now_s = self._loop.time()
        if now_s - self._row_began_s > _ROW_S:
            self._row, self._row_began_s = 0, now_s
        self._row += 1
        if (
            not self._waiting
            or self._row > FRAMES_IN_A_ROW
            or len(frame) > SLICE_BYTES
            or self._audio.full
        ):
            return False
        self._bare_audio_came = True
        self._audio.push(frame)
        return True

    async def _push(self, frame: bytes) -> None:
        """Push a frame; a long one in slices, so that decoding it does not hold up the
        other sessions.
        """
        if len(frame) <= SLICE_BYTES:
            self._audio.push(frame)
            return
        for start in range(0, len(frame), SLICE_BYTES):
            self._audio.push(frame[start : start + SLICE_BYTES])
            await asyncio.sleep(0)
