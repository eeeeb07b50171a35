"""The machine's microphone and loudspeaker, through the optional package
``sounddevice``.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from voicechat.cli.command import EXIT_USAGE, CommandError
from voicechat.client import PlaybackBuffer

_BLOCK_MS = 100
_MAX_BLOCKS = 50
"""Bound of the recording queue: 5 s. When it is full the oldest block is dropped."""


class AudioDevices(Protocol):
    """A microphone and an optional loudspeaker. Both use s16le mono."""

    @property
    def playback(self) -> PlaybackBuffer | None:
        """The loudspeaker's buffer; None without a loudspeaker."""

    def record(self) -> AsyncIterator[bytes]:
        """Yield recorded audio from now on, until closed."""


@dataclass(frozen=True, slots=True)
class SoundCard:
    """The default devices of the machine. ``sound`` is the module ``sounddevice``."""

    sound: Any
    record_rate_hz: int
    playback: PlaybackBuffer | None

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
            samplerate=self.record_rate_hz,
            channels=1,
            dtype="int16",
            blocksize=block_samples,
            callback=recorded,
        ):
            while True:
                yield await blocks.get()


@contextmanager
def open_audio_devices(record_rate_hz: int, play_rate_hz: int) -> Iterator[AudioDevices]:
    """Open the default devices. Raises CommandError with the remedy if there is no
    microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        # OSError: the package is installed, but the PortAudio library is missing.
        raise _no_devices("the microphone needs an extra: pip install 'voicechat[mic]'") from error
    try:
        sounddevice.check_input_settings(samplerate=record_rate_hz, channels=1, dtype="int16")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise _no_devices("this machine has no microphone") from error
    with _loudspeaker(sounddevice, play_rate_hz) as playback:
        yield SoundCard(sounddevice, record_rate_hz, playback)


@contextmanager
def _loudspeaker(sound: Any, rate_hz: int) -> Iterator[PlaybackBuffer | None]:
    playback: PlaybackBuffer | None = None

    def wanted(out: Any, _frames: int, _time: object, _status: object) -> None:
        out[:] = bytes(len(out)) if playback is None else playback.take_audio(len(out))

    try:
        stream = sound.RawOutputStream(
            samplerate=rate_hz, channels=1, dtype="int16", callback=wanted
        )
    except (sound.PortAudioError, ValueError):  # ValueError: there is no output device
        yield None
        return
    playback = PlaybackBuffer(rate_hz, latency_ms=round(stream.latency * 1000))
    with stream:
        yield playback


def _no_devices(reason: str) -> CommandError:
    return CommandError(f"{reason}; or talk with a recording: voicechat talk hello.wav", EXIT_USAGE)
