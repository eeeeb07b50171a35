"""A server as it runs, with scripted providers, for calls over real sockets."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from voicechat.config import load_config
from voicechat.runtime.services import Services
from voicechat.server.serve import Running, credentials, serving
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

KEY = "k" * 20
CONFIG = """
[agents.hotel]
instructions = "You answer for the hotel. The guest is {guest}; {caller} called {called}."
greeting = "Hotel Anna, good day. How may I help you?"
variables = { guest = "unknown" }
also = ["+49 30 1234"]
"""


@asynccontextmanager
async def phone_server(
    folder: Path,
    *,
    toml: str = CONFIG,
    model: ScriptedModel | None = None,
    recognizer: ScriptedRecognizer | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Serve on a free port."""
    file = folder / "voicechat.toml"
    file.write_text(toml)
    variables = {"VOICECHAT_DATA_DIR": str(folder), "VOICECHAT_API_KEY": KEY, **(environ or {})}
    config = load_config(file, variables, {"server": {"port": 0}})
    services = Services(
        {"default": recognizer or ScriptedRecognizer(("go somewhere",))},
        {"default": model or ScriptedModel()},
        {"default": ScriptedSynthesizer()},
    )
    async with serving(config, services, credentials(config), lambda _: None) as server:
        yield server
