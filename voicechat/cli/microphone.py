"""The machine's microphone and loudspeaker, through the optional package ``sounddevice``."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from voicechat.cli.command import EXIT_USAGE, CommandError

_BLOCK_MS = 100
_MAX_BLOCKS = 50
"""Speech that waits to be sent: 5 s, then the oldest is lost rather than memory."""


class AudioDevices(Protocol):
    """A microphone and a loudspeaker; both carry s16le mono."""

    def record(self) -> AsyncIterator[bytes]:
        """Yield what is said, from now on, until closed."""

    def play(self, pcm: bytes) -> None:
        """Play after what is still being played."""

    def hush(self) -> None:
        """Stop playing at once."""


class PlaybackBuffer:
    """Speech that waits for the sound card, which takes it on a thread of its own."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        self._lock = threading.Lock()

    def add(self, pcm: bytes) -> None:
        """Append speech."""
        with self._lock:
            self._pcm += pcm

    def clear(self) -> None:
        """Forget what has not been played."""
        with self._lock:
            self._pcm.clear()

    def take(self, n_bytes: int) -> bytes:
        """Give the next ``n_bytes``, filled up with silence."""
        with self._lock:
            taken = bytes(self._pcm[:n_bytes])
            del self._pcm[:n_bytes]
        return taken.ljust(n_bytes, b"\0")


@dataclass(frozen=True, slots=True)
class SoundCard:
    """The default devices of the machine. ``sound`` is the module ``sounddevice``."""

    sound: Any
    record_rate_hz: int
    playback: PlaybackBuffer

    async def record(self) -> AsyncGenerator[bytes, None]:
        """Yield 100 ms blocks. Closing the iterator closes the microphone."""
        loop = asyncio.get_running_loop()
        blocks: asyncio.Queue[bytes] = asyncio.Queue(_MAX_BLOCKS)

        def keep(block: bytes) -> None:
            if blocks.full():
                blocks.get_nowait()
            blocks.put_nowait(block)

        def recorded(samples: Any, _frames: int, _time: object, _status: object) -> None:
            loop.call_soon_threadsafe(keep, bytes(samples))

        block_samples = self.record_rate_hz * _BLOCK_MS // 1000
        with self.sound.RawInputStream(
            samplerate=self.record_rate_hz, channels=1, dtype="int16", blocksize=block_samples, callback=recorded
        ):
            while True:
                yield await blocks.get()

    def play(self, pcm: bytes) -> None:
        """Play after what is still being played."""
        self.playback.add(pcm)

    def hush(self) -> None:
        """Stop playing at once."""
        self.playback.clear()


@contextmanager
def open_audio_devices(record_rate_hz: int, play_rate_hz: int) -> Iterator[AudioDevices]:
    """Open the default devices. CommandError that says what to install or give instead when there are none."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, the PortAudio library is not.
        raise _no_devices("the microphone needs an extra: pip install 'voicechat[mic]'") from error
    playback = PlaybackBuffer()

    def wanted(out: Any, _frames: int, _time: object, _status: object) -> None:
        out[:] = playback.take(len(out))

    try:
        loudspeaker = sounddevice.RawOutputStream(samplerate=play_rate_hz, channels=1, dtype="int16", callback=wanted)
    except sounddevice.PortAudioError as error:
        raise _no_devices("this machine has no sound device") from error
    with loudspeaker:
        yield SoundCard(sounddevice, record_rate_hz, playback)


def _no_devices(reason: str) -> CommandError:
    return CommandError(f"{reason}; or talk with a recording: voicechat talk hello.wav", EXIT_USAGE)
