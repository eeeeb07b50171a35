"""Classical operations on videos, without a model: FFmpeg's motion-compensated
interpolation doubles the frames of a video, and moving objects are marked by their
difference from the background.

The background is what most frames show, so the camera must stand still, and an object
that does not move is not found. Objects that cross may exchange their numbers. A
process with limits and without access to files decodes and encodes; the results are MP4
with VP9, without sound.
"""

import asyncio
from pathlib import Path

from voicechat.errors import FailureKind, ProviderError, RequestRefusedError
from voicechat.processes import python
from voicechat.processes.errors import WorkerError
from voicechat.processes.forked import ForkServer, can_fork
from voicechat.processes.frames import FrameKind
from voicechat.providers.media import VideoOperation, VideoProcessor

PROVIDER = "motion"
AT_ONCE = 1
"""Videos processed at once: each takes a core for up to some minutes."""
PIECE_BYTES = 512 * 1024
ANSWER_MS = 60_000
"""How long the process may take for some frames; it reports after each few."""


def open_video_processor() -> "MotionProcessor":
    """Open the processor. Videos may have 1280 x 720 pixels and 900 frames."""
    return MotionProcessor()


class MotionProcessor(VideoProcessor):
    """A `VideoProcessor`. Between the first video and ``aclose`` a fork server runs."""

    def __init__(self) -> None:
        self._server = ForkServer(
            python.command("voicechat.providers.motion_child"), answer_ms=ANSWER_MS
        )
        self._places = asyncio.Semaphore(AT_ONCE)

    @property
    def operations(self) -> frozenset[VideoOperation]:
        """Both, where processes can be forked; none on Windows."""
        return frozenset(VideoOperation) if can_fork() else frozenset()

    async def aclose(self) -> None:
        """Stop the fork server."""
        await self._server.aclose()

    async def process_video(self, source: Path, target: Path, operation: VideoOperation) -> None:
        """Process a file. Raises `RequestRefusedError` for a file that is no video or
        exceeds the limits, and `ProviderError` when its process was lost, as it is for
        videos that take too long. Cancelling ends the process.
        """
        content = await asyncio.to_thread(source.read_bytes)
        async with self._places:
            pieces = await self._process(content, operation)
        await asyncio.to_thread(target.write_bytes, b"".join(pieces))

    async def _process(self, content: bytes, operation: VideoOperation) -> list[bytes]:
        try:
            stream = await self._server.fork(operation.value.encode())
        except WorkerError as error:
            message = "no process can be started"
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, message) from error
        pieces: list[bytes] = []
        try:
            for begin in range(0, len(content), PIECE_BYTES):
                stream.send(content[begin : begin + PIECE_BYTES])
                await stream.receive_frame()
            stream.finish_input()
            while (frame := await stream.receive_frame()).kind is not FrameKind.ENDED:
                if frame.kind is FrameKind.FAILED:
                    code = frame.payload.decode()
                    raise RequestRefusedError(PROVIDER, "the video was refused", code=code)
                pieces.append(bytes(frame.payload))
        except WorkerError as error:
            message = "the video takes too much time or memory"
            raise ProviderError(PROVIDER, FailureKind.TIMEOUT, message) from error
        finally:
            stream.close()
        return pieces
