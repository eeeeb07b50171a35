"""Recognition and synthesis services of Home Assistant: faster-whisper, Piper, and all
others that speak Wyoming.

Protocol: github.com/OHF-Voice/wyoming, with the ``wyoming`` package (``pip install
'voicechat[wyoming]'``).
"""

from typing import Annotated

from pydantic import Field

from voicechat.audio.pause_detection import PAUSE_MS
from voicechat.providers.utterances import Schedule
from voicechat.providers.wyoming_link import WyomingService
from voicechat.providers.wyoming_recognition import WyomingRecognizer
from voicechat.providers.wyoming_speech import WyomingSynthesizer


def open_recognizer(
    *,
    uri: str = "tcp://127.0.0.1:10300",
    model: str = "",
    language: str = "",
    pause_ms: Annotated[int, Field(ge=100, le=10_000)] = PAUSE_MS,
    partial_every_ms: Annotated[int, Field(ge=0, le=60_000)] = 0,
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    read_timeout_ms: Annotated[int, Field(ge=1)] = 15_000,
) -> WyomingRecognizer:
    """Open the recogniser.

    ``model``, ``language``: the service's names; empty: its own choice. ``pause_ms``:
    silence that ends an utterance. ``partial_every_ms``: how often an open utterance is
    recognised for partial results; 0: never, since each pass costs computing.
    ``connect_ms``: limit for the TCP connection. ``read_timeout_ms``: limit for an
    answer. Raises `ConfigError` for an unusable address.
    """
    service = WyomingService(uri, connect_s=connect_ms / 1000, silence_s=read_timeout_ms / 1000)
    schedule = Schedule(pause_ms=pause_ms, partial_every_ms=partial_every_ms)
    return WyomingRecognizer(service, model, language, schedule)


def open_synthesizer(
    *,
    uri: str = "tcp://127.0.0.1:10200",
    voice: str = "",
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    read_timeout_ms: Annotated[int, Field(ge=1)] = 15_000,
) -> WyomingSynthesizer:
    """Open the synthesiser.

    ``voice``: the default; empty: the first that the service has installed.
    ``connect_ms``, ``read_timeout_ms`` as for `open_recognizer`. Raises `ConfigError`
    for an unusable address.
    """
    service = WyomingService(uri, connect_s=connect_ms / 1000, silence_s=read_timeout_ms / 1000)
    return WyomingSynthesizer(service, voice)
