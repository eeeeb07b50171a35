"""The checks of ``voicechat doctor``. Each returns a description of what works, or
raises an error that describes the problem.
"""

import asyncio
import difflib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import parse_output_format
from voicechat.audio.resample import RateConverter
from voicechat.cli.command import CommandError
from voicechat.cli.recordings import in_pieces
from voicechat.cli.started_service import started_service
from voicechat.config import (
    Config,
    ServiceConfig,
    ToolConfig,
    configured_drawing,
    configured_server,
    configured_tool,
)
from voicechat.config.endpoints import open_endpoint
from voicechat.config.knowledge import open_knowledge
from voicechat.config.media import open_media
from voicechat.config.resumption import open_resumption_store
from voicechat.errors import AdmissionError, ConfigError, VoiceChatError
from voicechat.providers.interfaces import (
    PCM_RATE_HZ,
    ChatModel,
    ChatRequest,
    EmbeddingRequest,
    RecognitionOptions,
    SpeechRecognizer,
    SpeechSynthesizer,
    TextDelta,
    TextEmbedder,
    VoiceOptions,
)
from voicechat.runtime.media_services import ServicesOfKind
from voicechat.schema.document import DOCUMENT_VOICE
from voicechat.server.app import build_app
from voicechat.server.cluster import open_cluster
from voicechat.server.listener import listening
from voicechat.server.serve import credentials, open_detector
from voicechat.session.types import InputSettings
from voicechat.store.cluster_usage import ClusterUnavailableError
from voicechat.store.model_catalogue import MODELS_FOLDER, read_catalogue
from voicechat.store.models import ModelFolder
from voicechat.store.resumption.interface import StoreUnavailableError
from voicechat.text.words import join
from voicechat.voice.turn_model import LENGTH_MS, TurnModel

PROBE_TEXT = "Hello, this is a test."
_FALLBACK_VOICE = ServiceConfig(provider="espeak")
"""Speaks to the recognisers where the default synthesiser does not."""


class NotTriedError(CommandError):
    """A check could not be made, through no fault of what it is about."""


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
    """Load a tool's function, or list an MCP server's tools. Nothing is called, because
    it may have side effects.
    """
    if config.tools[name].is_mcp:
        return await _check_mcp_server(name, config.tools[name])
    if config.tools[name].images:
        drawing = configured_drawing(config, name)
        return f"draws pictures by images.{drawing.service}; it was not called"
    tool = configured_tool(name, config.tools[name])
    return f"loaded, with a deadline of {tool.deadline_s:g} s; it was not called"


async def _check_mcp_server(name: str, tool: ToolConfig) -> str:
    server = configured_server(name, tool)
    await server.start()
    try:
        if not server.tools:
            raise CommandError("the MCP server cannot be reached, or has no tool that is offered")
        return f"connected: {', '.join(server.tools)}; none was called"
    finally:
        await server.aclose()


async def check_models(config: Config) -> str:
    """Read the pulled models, and compare them with the catalogue."""
    folder = ModelFolder(config.data_dir / MODELS_FOLDER)
    pulled = [
        model
        for model in read_catalogue().models.values()
        if model.files and folder.has_model(model.name)
    ]
    if not pulled:
        return "none are pulled; see 'voicechat models list'"
    for model in pulled:
        wrong = await asyncio.to_thread(folder.wrong_files, model)
        if wrong:
            raise CommandError(f"{model.name}: {wrong[0]}; 'voicechat models pull {model.name}'")
    return f"{', '.join(model.name for model in pulled)}: as published"


async def check_voice_detection(config: Config) -> str:
    """Load the models of ``[hands_free]`` as the server does, and let the turn model
    judge silence.
    """
    try:
        detector = open_detector(config)
    except ConfigError as error:
        raise CommandError(str(error).removeprefix("hands_free.")) from error
    if detector.turn_judge is None:
        return "voice model loaded; no turn_model, so words alone say whether a turn is over"
    detector.turn_judge.close()
    begun_s = _now_s()
    model = TurnModel(Path(config.hands_free.turn_model))
    await asyncio.to_thread(model.probability, bytes(2 * PCM_RATE_HZ * LENGTH_MS // 1000))
    return f"voice model and turn_model loaded; a turn is judged in {_now_s() - begun_s:.2f} s"


async def probe_synthesizer(config: Config, name: str) -> str:
    """Synthesise a sentence, and compare the time that takes with the time it lasts."""
    begun_s = _now_s()
    async with started_service("tts", name, config.tts) as service:
        started_s = _now_s()
        pcm = await _speech(service)
        factor = _factor(started_s, pcm)
        if pcm and factor > 1:
            # The first sentence may load the model.
            started_s = _now_s()
            factor = _factor(started_s, await _speech(service))
        voices = len(service.voices)
    if not pcm:
        raise CommandError("it made no audio of a plain sentence")
    if factor > 1:
        raise CommandError(
            f"it is too slow, at a real-time factor of {factor:.2f}: speech would stop and go; on "
            "this machine a smaller model, or less other work, may help"
        )
    took_s = _now_s() - begun_s
    return (
        f"made {_seconds(pcm)} of speech in {took_s:.1f} s, start included; real-time factor "
        f"{factor:.2f}; {voices} voices"
    )


async def probe_recognizer(config: Config, name: str) -> str:
    """Recognise synthesised speech. Any transcript passes, because recognisers do not
    always understand synthetic voices.
    """
    pcm, speaker = await _probe_speech(config)
    begun_s = _now_s()
    async with started_service("asr", name, config.asr) as service:
        started_s = _now_s()
        understood = await _recognized(service, pcm)
        factor = _factor(started_s, pcm)
        if factor > 1:
            # The first utterance may load the model.
            started_s = _now_s()
            understood = await _recognized(service, pcm)
            factor = _factor(started_s, pcm)
    if factor > 1:
        raise CommandError(
            f"it is too slow, at a real-time factor of {factor:.2f}: answers would come late; on "
            "this machine a smaller model, or less other work, may help"
        )
    return (
        f"heard {PROBE_TEXT!r} as {understood!r} in {_now_s() - begun_s:.1f} s, start included; "
        f"real-time factor {factor:.2f}{speaker}"
    )


async def _recognized(recognizer: SpeechRecognizer, pcm: bytes) -> str:
    results = recognizer.recognize(in_pieces(pcm), RecognitionOptions())
    return join([result.text async for result in results if result.final])


async def _probe_speech(config: Config) -> tuple[bytes, str]:
    """Return speech to try a recogniser with, and a note when it is not spoken by the
    default synthesiser. Raises `NotTriedError` when nothing speaks.
    """
    try:
        async with started_service("tts", "default", config.tts) as synthesizer:
            return await _speech(synthesizer), ""
    except Exception:  # noqa: BLE001, S110 - its own check reports it; plug-ins raise anything
        pass
    try:
        async with started_service("tts", "default", {"default": _FALLBACK_VOICE}) as synthesizer:
            return await _speech(synthesizer), "; spoken by espeak, because tts.default does not"
    except VoiceChatError as error:
        raise NotTriedError("not tried, because tts.default makes no speech") from error


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


async def check_embedder(config: Config, name: str) -> str:
    """Check that an embedding service answers, by embedding a text."""
    embedder: TextEmbedder = _embedders(config).services[name]
    try:
        await embedder.start()
        made = await embedder.embed(EmbeddingRequest(texts=(PROBE_TEXT,)))
    finally:
        await embedder.aclose()
    return f"it answered with {made.vectors.shape[1]} dimensions"


async def check_knowledge(config: Config) -> str:
    """Check that the knowledge bases can be opened, if there are any, and return how
    they are searched.
    """
    retriever = open_knowledge(config, _embedders(config))
    if retriever is None:
        if config.knowledge.enabled is False:
            return "switched off"
        return "not possible without packages: pip install 'voicechat[knowledge]'"
    try:
        if retriever.store.in_use:
            await retriever.store.start()
    except AdmissionError as error:
        raise CommandError(f"knowledge: {error.message}") from error
    finally:
        await retriever.aclose()
    where = "in PostgreSQL" if config.knowledge.database_url else "in SQLite"
    if retriever.embedder is None:
        return (
            f"{where}; searched by words only, because there is no embedder: "
            "pip install 'voicechat[embeddings]', or configure [embedders.default]"
        )
    return f"{where}; searched by words, and by meaning with embedders.{config.knowledge.embedder}"


def _embedders(config: Config) -> ServicesOfKind[TextEmbedder]:
    return open_media({"embedders": config.media_services.get("embedders", {})}).embedders


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


def _factor(begun_s: float, pcm: bytes) -> float:
    """Return the time since ``begun_s`` as a multiple of the length of the speech."""
    return (_now_s() - begun_s) * PCM_RATE_HZ * 2 / max(len(pcm), 1)


def _seconds(pcm: bytes) -> str:
    return f"{len(pcm) / 2 / PCM_RATE_HZ:.1f} s"


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def check_resumption(config: Config) -> str:
    """Check that a state can be stored and read again, and return how long that
    took.
    """
    store = open_resumption_store(config)
    if store is None:
        return "switched off"
    name, state = f"doctor {secrets.token_hex(16)}", secrets.token_bytes(32)
    loop = asyncio.get_running_loop()
    try:
        await store.start()
        began_s = loop.time()
        lease, _ = await store.acquire(name, "doctor")
        await store.save(lease, state)
        lease, found = await store.acquire(name, "doctor again")
        await store.end(lease)
        took_ms = (loop.time() - began_s) * 1000
    except StoreUnavailableError as error:
        raise CommandError(f"resumption.store does not work: {error}") from error
    finally:
        await store.aclose()
    if found != state:
        raise CommandError("resumption.store returned another state than was stored")
    kind = config.resumption.store.partition(":")[0]
    return f"{kind}: four operations took {took_ms:.0f} ms"


async def check_cluster(config: Config) -> str:
    """Check that Redis answers, and return how long that took."""
    cluster = open_cluster(config.cluster)
    if cluster is None:
        return "none: this machine counts for itself"
    loop = asyncio.get_running_loop()
    try:
        await cluster.publish()
        began_s = loop.time()
        await cluster.publish()
        took_ms = (loop.time() - began_s) * 1000
    except ClusterUnavailableError as error:
        raise CommandError(
            f"cluster.redis does not answer within {config.cluster.deadline_ms} ms: {error}"
        ) from error
    finally:
        await cluster.aclose()
    return f"Redis answered in {took_ms:.0f} ms"
