"""The processes that decode pictures; this module is their fork server.

A job's options are `PictureLimits` as JSON. Its payloads are the file; the end of the
input is answered by one line of JSON (``content_type``, ``width``, ``height``) and the
picture written anew, in pieces.
"""

import io
import signal
from collections.abc import Iterable, Iterator

import orjson
from PIL import Image

from voicechat.errors import RemoteProtocolError
from voicechat.pictures.inspection import PictureLimits, inspect_picture
from voicechat.pictures.picture import CONTENT_TYPES
from voicechat.processes.fork_server import ForkedJob, JobLimits, JobRefusalError, serve

LIMITS = JobLimits(step_cpu_ms=2_500, total_cpu_s=8, memory_bytes=512 << 20)
"""24 million pixels take 96 MB decoded, and as much again converted and encoded.
``inspect_picture`` bounds the CPU time of its own stages.
"""
PIECE_BYTES = 512 * 1024


class PictureJob:
    """Inspects one picture."""

    def __init__(self, limits: PictureLimits) -> None:
        self._limits = limits
        self._content = bytearray()

    def feed_payload(self, payload: bytes) -> Iterable[bytes]:
        """Keep the next bytes; the parent bounds them."""
        self._content += payload
        return ()

    def finish_input(self) -> Iterator[bytes]:
        """Return what was found, and the picture."""
        try:
            picture = inspect_picture(bytes(self._content), self._limits, bound_cpu)
        except RemoteProtocolError as error:
            raise JobRefusalError(f"{error.fault.name} {error.message}") from error
        about = {
            "content_type": picture.content_type,
            "width": picture.width,
            "height": picture.height,
        }
        yield orjson.dumps(about)
        for begin in range(0, len(picture.content), PIECE_BYTES):
            yield picture.content[begin : begin + PIECE_BYTES]


def bound_cpu(seconds: float) -> None:
    """Have the kernel kill this process after so much more CPU time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def open_job(options: bytes) -> ForkedJob:
    """Create the job with these limits."""
    return PictureJob(PictureLimits(**orjson.loads(options)))


def main() -> None:
    """Serve until the parent closes the connection."""
    # Load every decoder and encoder before the first fork: the sandbox opens no file.
    for name in CONTENT_TYPES:
        written = io.BytesIO()
        Image.new("RGB", (8, 8)).save(written, name)
        inspect_picture(written.getvalue(), PictureLimits())
    serve(open_job, LIMITS)


if __name__ == "__main__":
    main()
