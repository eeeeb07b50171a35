"""The server as it runs, with scripted services and real voice detection, for stock
clients.
"""

import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from voicechat.config import load_config
from voicechat.runtime.services import Services
from voicechat.runtime.toolbox import Toolbox
from voicechat.server.serve import Running, credentials, serving
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

KEY = "k" * 20
RATE_HZ = 24_000
LONG_STORY = "This is a long story that goes on and on, and on, and on, and then some more."


def called(name: str) -> ToolCall:
    return ToolCall(0, f"call_{name}", name, "{}")


def agents_model() -> ScriptedModel:
    """What the model says in ``node/agents_scenario.mjs``."""
    return ScriptedModel(
        (
            ("Let me see. ", called("lamp")),
            ("There is light.",),
            (called("transfer_to_Other"),),
            ("I am the other.",),
            ("That damn thing. ", LONG_STORY),
            ("I am sorry.",),
        ),
        delta_ms=50,
    )


@asynccontextmanager
async def realtime_server(
    folder: Path,
    model: ScriptedModel,
    *,
    recognizer: ScriptedRecognizer | None = None,
    toolbox: Toolbox | None = None,
    toml: str = "",
) -> AsyncIterator[Running]:
    """Serve on a free port while the context lasts."""
    file = folder / "voicechat.toml"
    file.write_text(f"[admission]\nunquestioned_sessions = 1000000\n{toml}")
    environ = {"VOICECHAT_DATA_DIR": str(folder), "VOICECHAT_API_KEY": KEY}
    config = load_config(file, environ, {"server": {"port": 0}})
    services = Services(
        {"default": recognizer or ScriptedRecognizer(("go somewhere",))},
        {"default": model},
        {"default": ScriptedSynthesizer()},
        toolbox,
    )
    async with serving(config, services, credentials(config), lambda _: None) as server:
        yield server


def speech(recordings: Path, *, silence_ms: int = 1_500) -> bytes:
    """Somebody says something, then nothing: 24 kHz s16le mono."""
    with wave.open(str(recordings / "something.wav")) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
        rate_hz = file.getframerate()
    length = len(heard) * RATE_HZ // rate_hz
    again = np.interp(np.arange(length) * rate_hz / RATE_HZ, np.arange(len(heard)), heard)
    said: bytes = again.astype("<i2").tobytes()
    return said + bytes(RATE_HZ * 2 * silence_ms // 1000)
