"""The processes of the ``motion`` provider; this module is their fork server.

A job's options are the operation; its payloads are the video. The end of the input is
answered by the result, in pieces, with empty ones in between that show progress. A
refusal is the code of its reason.
"""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from PIL import Image, ImageDraw, ImageFont

from voicechat.processes.fork_server import ForkedJob, JobLimits, JobRefusalError, serve
from voicechat.providers.media import VideoOperation
from voicechat.providers.motion_tracking import Frame, MotionTracker, background_of

LIMITS = JobLimits(step_cpu_ms=290_000, total_cpu_s=300, memory_bytes=1 << 30)
"""The longest video takes about 120 s of a core."""
MOST_PIXELS = 1280 * 720
MOST_FRAMES = 900
"""30 seconds at 30 frames a second."""
MOST_RATE = 60
PIECE_BYTES = 512 * 1024
PROGRESS_FRAMES = 8
SAMPLES = 25
"""Frames of which the background is made."""
ENCODER = "libvpx-vp9"  # BSD, unlike the encoders of H.264 that FFmpeg has
ENCODER_OPTIONS = {"deadline": "realtime", "cpu-used": "8", "row-mt": "0"}
BITS_PER_PIXEL = 0.12
INTERPOLATION = "mi_mode=mci:mc_mode=obmc:me_mode=bidir"
COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "orange", "white")


class VideoWriter:
    """Encodes frames as an MP4 file in memory."""

    def __init__(self, rate: Fraction) -> None:
        self._rate = rate
        self._file = io.BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        self._stream: av.VideoStream | None = None

    def add(self, frame: av.VideoFrame) -> None:
        """Encode the next frame."""
        stream = self._stream
        if stream is None:
            added = self._container.add_stream(ENCODER, rate=self._rate, options=ENCODER_OPTIONS)
            assert isinstance(added, av.VideoStream), "an encoder of videos"
            stream = self._stream = added
            # VP9 in 4:2:0 needs even sides.
            stream.width, stream.height = frame.width // 2 * 2, frame.height // 2 * 2
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            stream.bit_rate = int(BITS_PER_PIXEL * frame.width * frame.height * self._rate)
        self._container.mux(
            stream.encode(frame.reformat(stream.width, stream.height, stream.pix_fmt, threads=1))
        )

    def finish(self) -> bytes:
        """Return the file."""
        if self._stream is None:
            raise JobRefusalError("no_video")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


class Video:
    """A video in memory that can be decoded several times."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        with self._opened() as container:
            stream = container.streams.video[0]
            self.rate = Fraction(stream.average_rate or 25)
            if stream.width * stream.height > MOST_PIXELS:
                raise JobRefusalError("too_large")
        if not 1 <= self.rate <= MOST_RATE:
            raise JobRefusalError("frame_rate")

    def _opened(self) -> av.container.InputContainer:
        container = av.open(io.BytesIO(self._content), "r")
        if not container.streams.video:
            raise JobRefusalError("no_video")
        container.streams.video[0].thread_count = 1
        return container

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decode."""
        with self._opened() as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number >= MOST_FRAMES:
                    raise JobRefusalError("too_long")
                if frame.width * frame.height > MOST_PIXELS:
                    raise JobRefusalError("too_large")
                yield frame


def interpolated(video: Video) -> Iterator[av.VideoFrame]:
    """Yield twice as many frames, the new ones between the others."""
    graph: Graph | None = None
    shape = (0, 0, "")
    for number, frame in enumerate(video.frames()):
        if graph is None:
            shape = (frame.width, frame.height, frame.format.name)
            graph = Graph()
            graph.threads = 1
            source = graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=Fraction(1) / video.rate,
            )
            doubling = graph.add("minterpolate", f"fps={2 * video.rate}:{INTERPOLATION}")
            sink = graph.add("buffersink")
            source.link_to(doubling)
            doubling.link_to(sink)
            graph.configure()
        if (frame.width, frame.height, frame.format.name) != shape:
            frame = frame.reformat(*shape, threads=1)
        frame.pts, frame.time_base = number, Fraction(1) / video.rate
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.VideoFrame), "a graph of videos"
        yield frame


def tracked(video: Video, font: ImageFont.FreeTypeFont) -> Iterator[av.VideoFrame]:
    """Yield the frames with boxes around what moves, and their numbers."""
    count = sum(1 for _ in video.frames())
    step = max(1, count // SAMPLES)
    samples: list[Frame] = [
        _array(frame) for number, frame in enumerate(video.frames()) if number % step == 0
    ]
    if not samples:
        return
    tracker = MotionTracker(background_of(samples))
    del samples
    for number, frame in enumerate(video.frames()):
        image = Image.fromarray(_array(frame))
        pen = ImageDraw.Draw(image)
        for box in tracker.boxes(np.asarray(image)):
            colour = COLOURS[box.number % len(COLOURS)]
            corner = (box.left, box.top)
            pen.rectangle((*corner, box.right, box.bottom), outline=colour, width=3)
            pen.text((box.left + 5, box.top + 4), str(box.number), fill=colour, font=font)
        marked = av.VideoFrame.from_ndarray(np.asarray(image), "rgb24")
        marked.pts, marked.time_base = number, Fraction(1) / video.rate
        yield marked


def _array(frame: av.VideoFrame) -> Frame:
    array: Frame = frame.reformat(format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]
    return array


class MotionJob:
    """Processes one video."""

    def __init__(self, operation: VideoOperation, font: ImageFont.FreeTypeFont) -> None:
        self._operation = operation
        self._font = font
        self._content = bytearray()

    def feed_payload(self, payload: bytes) -> Iterable[bytes]:
        """Keep the next bytes."""
        self._content += payload
        return ()

    def finish_input(self) -> Iterator[bytes]:
        """Return the result."""
        try:
            video = Video(bytes(self._content))
            if self._operation is VideoOperation.INTERPOLATE:
                frames, rate = interpolated(video), 2 * video.rate
            else:
                frames, rate = tracked(video, self._font), video.rate
            writer = VideoWriter(rate)
            for number, frame in enumerate(frames):
                frame.pts, frame.time_base = number, 1 / rate
                writer.add(frame)
                if number % PROGRESS_FRAMES == 0:
                    yield b""
            content = writer.finish()
        except (av.FFmpegError, ValueError, IndexError) as error:
            raise JobRefusalError("no_video") from error
        for begin in range(0, len(content), PIECE_BYTES):
            yield content[begin : begin + PIECE_BYTES]


def main() -> None:
    """Serve until the parent closes the connection."""
    av.logging.set_level(av.logging.PANIC)
    font = ImageFont.load_default(size=16)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow has FreeType"
    _warm_up(font)

    def open_job(options: bytes) -> ForkedJob:
        return MotionJob(VideoOperation(options.decode()), font)

    serve(open_job, LIMITS)


def _warm_up(font: ImageFont.FreeTypeFont) -> None:
    """Load every codec and filter before the first fork: the sandbox opens no file."""
    writer = VideoWriter(Fraction(10))
    for number in range(4):
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * number, np.uint8), "rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        writer.add(frame)
    content = writer.finish()
    for operation in VideoOperation:
        job = MotionJob(operation, font)
        job.feed_payload(content)
        list(job.finish_input())


if __name__ == "__main__":
    main()
