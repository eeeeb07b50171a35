"""The checks of ``voicechat doctor``. Each returns a description of what works, or
raises an error that describes the problem.
"""

import asyncio
import difflib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import parse_output_format
from voicechat.audio.resample import RateConverter
from voicechat.cli.command import CommandError
from voicechat.cli.recordings import in_pieces
from voicechat.cli.started_service import NotStartedError, started_service
from voicechat.config import Config, configured_tool
from voicechat.config.endpoints import open_endpoint
from voicechat.errors import ProviderError
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    ChatModel,
    ChatRequest,
    RecognitionOptions,
    SpeechRecognizer,
    SpeechSynthesizer,
    TextDelta,
    VoiceOptions,
)
from voicechat.schema.document import DOCUMENT_VOICE
from voicechat.server.app import build_app
from voicechat.server.listener import listening
from voicechat.server.serve import credentials
from voicechat.session.types import InputSettings
from voicechat.text.words import join

PROBE_TEXT = "Hello, this is a test."


async def check_data_directory(config: Config) -> str:
    """Check that the data directory is writable, by creating and removing a file."""
    probe = config.data_dir / f".probe-{secrets.token_hex(4)}"
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise CommandError(
            f"{config.data_dir} cannot be written ({error.strerror}); "
            "set VOICECHAT_DATA_DIR to a directory that can"
        ) from error
    return f"{config.data_dir} can be written"


async def check_keys(config: Config) -> str:
    """Report where the API keys come from."""
    return (
        "made at the first start, for this machine alone"
        if credentials(config).shown
        else "configured"
    )


async def check_port(config: Config) -> str:
    """Check that the port is free, by listening on it briefly."""
    async with listening(build_app([]), config.server.host, config.server.port) as port:
        return f"{config.server.host}:{port} is free"


async def check_codecs() -> str:
    """Check the default output format by encoding 100 ms of silence."""
    wished = parse_output_format(DOCUMENT_VOICE.format)
    encoder = open_encoder(wished)
    encoded = (
        encoder.encode(bytes(wished.rate_hz // 10 * 2), wished.rate_hz) + encoder.finish_stream()
    )
    if not encoded:
        raise CommandError("the MP3 encoder makes nothing; reinstall the package 'av'")
    return f"{wished.name} is made, {InputSettings().format} is read"


async def check_tool(config: Config, name: str) -> str:
    """Load a tool's function. It is not called, because it may have side effects."""
    tool = configured_tool(name, config.tools[name])
    return f"loaded, with a deadline of {tool.deadline_s:g} s; it was not called"


async def probe_synthesizer(config: Config, name: str) -> str:
    """Synthesise a sentence."""
    begun_s = _now_s()
    async with started_service("tts", name, config.tts) as service:
        pcm = await _speech(service)
        voices = len(service.voices)
    if not pcm:
        raise CommandError("it made no audio of a plain sentence")
    took_s = _now_s() - begun_s
    return f"made {_seconds(pcm)} of speech in {took_s:.1f} s, start included; {voices} voices"


async def probe_recognizer(config: Config, name: str) -> str:
    """Recognise synthesised speech. Any transcript passes, because recognisers do not
    always understand synthetic voices.
    """
    begun_s = _now_s()
    try:
        async with started_service("tts", "default", config.tts) as synthesizer:
            pcm = await _speech(synthesizer)
    except (ProviderError, NotStartedError) as error:
        raise CommandError(f"tts.default made no speech to try it with: {error}") from error
    async with started_service("asr", name, config.asr) as service:
        recognizer: SpeechRecognizer = service
        results = recognizer.recognize(in_pieces(pcm), RecognitionOptions())
        understood = join([result.text async for result in results if result.final])
    return f"heard {PROBE_TEXT!r} as {understood!r} in {_now_s() - begun_s:.1f} s, start included"


async def probe_chat_model(config: Config, name: str) -> str:
    """Request a short reply."""
    begun_s = _now_s()
    request = ChatRequest(
        messages=({"role": "user", "content": "Say hello."},), options={"max_tokens": 16}
    )
    async with started_service("llm", name, config.llm) as service:
        model: ChatModel = service
        characters = sum(
            [len(part.text) async for part in model.reply(request) if isinstance(part, TextDelta)]
        )
    if not characters:
        raise CommandError("it answered without any text")
    return f"answered with {characters} characters in {_now_s() - begun_s:.1f} s"


async def check_agent(config: Config, name: str) -> str:
    """Check that an agent's voice exists. Its services have checks of their own."""
    agent = config.agents.agents[name]
    services = f"llm.{agent.llm}, asr.{agent.asr}, tts.{agent.tts}"
    if not agent.voice:
        return f"{services}, its default voice"
    async with started_service("tts", agent.tts, config.tts) as service:
        voices: Sequence[str] = service.voices
    if voices and agent.voice not in voices:
        near = difflib.get_close_matches(agent.voice, voices, 3) or voices[:3]
        raise CommandError(
            f"tts.{agent.tts} has no voice {agent.voice!r}, "
            f"but {', '.join(near)} ({len(voices)} in all)"
        )
    return f"{services}, voice {agent.voice}"


async def check_dialect(config: Config, name: str) -> str:
    """Check that the endpoint of a dialect can be opened, and return where it is."""
    endpoint = open_endpoint(name, config.dialects[name])
    places = [f"ws {path}" for path in endpoint.paths]
    if endpoint.port is not None:
        places.append(f"tcp {endpoint.host}:{endpoint.port or 'any'}")
    return ", ".join(places)


PROBES: Mapping[str, Callable[[Config, str], Awaitable[str]]] = {
    "tts": probe_synthesizer,
    "asr": probe_recognizer,
    "llm": probe_chat_model,
}


async def _speech(synthesizer: SpeechSynthesizer) -> bytes:
    """Synthesise the probe text as s16le mono 16 kHz."""
    chunks = [chunk async for chunk in synthesizer.synthesize(PROBE_TEXT, VoiceOptions())]
    converter = RateConverter(PCM_RATE_HZ)
    return (
        b"".join(converter.push_audio(chunk.pcm, chunk.rate_hz) for chunk in chunks)
        + converter.finish_stream()
    )


def _seconds(pcm: bytes) -> str:
    return f"{len(pcm) / 2 / PCM_RATE_HZ:.1f} s"


def _now_s() -> float:
    return asyncio.get_running_loop().time()
