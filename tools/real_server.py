"""A conversation through an OpenAI-compatible server that is not ours: `transformers
serve`, on the CPU.

    python3 -m venv /tmp/serving
    /tmp/serving/bin/pip install torch 'transformers[serving,audio]' python-multipart
    python -m tools.real_server --python /tmp/serving/bin/python

The models, a Llama and a Whisper, are made on the spot, tiny and random. What they say
means nothing; that the server has its own ways is the point: no ``[DONE]``, the usage
beside the finish reason, no times of words (422), and 500 for a list of models where
none were downloaded. Ends with status 0 when all is as it should be.
"""

import argparse
import asyncio
import os
import re
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.providers.relay import Relay, relaying
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ErrorMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    connect,
)
from voicechat.client.conversation import chat_settings
from voicechat.config import load_config
from voicechat.providers.espeak import open_synthesizer
from voicechat.providers.interfaces import VoiceOptions

START_S = 180
"""The server imports torch and loads its model."""
TURN_S = 60
MAX_TOKENS = 60
LONG_TOKENS = 4_000
RATE_HZ = 22_050
LLAMA, WHISPER = "llama", "whisper"
CONFIG = """
[llm.default]
provider = "openai"
model = "{folder}/llama"
base_url = "http://127.0.0.1:{port}/v1"
[asr.default]
provider = "openai"
model = "{folder}/whisper"
base_url = "http://127.0.0.1:{port}/v1"
"""


async def main(python: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makes_models = Path(__file__).with_name("real_server_model.py")
        await run(str(python), str(makes_models), str(folder / LLAMA), str(folder / WHISPER))
        async with (
            model_server(python, folder) as model_port,
            relaying(model_port) as relay,
            voicechat_server(folder, relay.port) as (url, key),
        ):
            await converse(url, key, relay)
        print(f"connections to the model server: {len(relay.passages)}")


async def converse(url: str, key: str, relay: Relay) -> None:
    async with connect(url, key=key) as conversation:
        await conversation.update(settings(MAX_TOKENS))
        for piece in await speech("Go forward ten meters."):
            await conversation.send_audio(piece)
        await conversation.complete()
        heard = await hear_turn(conversation, "spoken turn")
        assert len(heard.split()) > 1, heard
        await conversation.send_text("And then?")
        await hear_turn(conversation, "typed turn")
    async with connect(url, key=key) as conversation:
        await conversation.update(settings(LONG_TOKENS))
        await interrupt(conversation, relay)
        whole = sum(passage.whole_answers for passage in relay.chats)
    async with connect(url, key=key) as conversation:
        await conversation.update(settings(MAX_TOKENS))
        await conversation.send_text("Are you still there?")
        await hear_turn(conversation, "turn after the interruption")
        assert sum(passage.whole_answers for passage in relay.chats) == whole + 1


async def hear_turn(conversation: ClientConversation, name: str) -> str:
    """Hear a turn to its end: text in pieces, audio, completed. Gives what was
    recognised.
    """
    heard, deltas, finish_reason, audio_bytes = "", 0, None, 0
    async with asyncio.timeout(TURN_S):
        async for message in conversation:
            match message:
                case TranscriptMessage(text=text):
                    heard = text
                case ReplyTextMessage():
                    deltas += bool(message.content)
                    finish_reason = message.finish_reason or finish_reason
                case ReplyAudioMessage(payload=payload):
                    audio_bytes += len(payload)
                case ErrorMessage():
                    raise AssertionError(message.message)
                case TurnCompletedMessage():
                    break
                case _:
                    pass
    assert deltas > 5, deltas
    assert finish_reason == "length", finish_reason
    assert audio_bytes > RATE_HZ, audio_bytes
    print(
        f"{name}: heard {heard!r}, {deltas} pieces of text, {audio_bytes / RATE_HZ / 2:.1f} s of "
        "speech, completed"
    )
    return heard


async def interrupt(conversation: ClientConversation, relay: Relay) -> None:
    """Interrupt a long reply: its connection is closed in the middle, and nothing of
    the reply follows.
    """
    await conversation.send_text("Tell me a long story.")
    deltas = 0
    async with asyncio.timeout(TURN_S):
        while deltas < 10:
            message = await conversation.receive()
            assert not isinstance(message, ErrorMessage), message
            deltas += isinstance(message, ReplyTextMessage) and bool(message.content)
        # The passage that carries the reply: the only one whose last answer is not
        # whole.
        (passage,) = [
            each
            for each in relay.chats
            if each.whole_answers < each.requests and not each.closed.is_set()
        ]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await conversation.cancel()
        while not isinstance(await conversation.receive(), CanceledMessage):
            pass
        canceled_s = loop.time()
        await passage.closed.wait()
        closed_s = loop.time()
        while not isinstance(message := await conversation.receive(), TurnCompletedMessage):
            assert not isinstance(message, ReplyTextMessage | ReplyAudioMessage), message
    assert passage.closed_by == "client", passage.closed_by
    assert passage.whole_answers < passage.requests
    print(
        f"interrupted after {deltas} pieces of text: canceled after "
        f"{1000 * (canceled_s - began_s):.1f} ms, "
        f"the connection was closed after {1000 * (closed_s - began_s):.1f} ms at most, in the "
        "middle of the answer"
    )


def settings(max_tokens: int) -> dict[str, object]:
    made = chat_settings(
        input_format="pcm", sample_rate_hz=RATE_HZ, output_format="PCM_22050HZ_MONO_16BIT"
    )
    both = made["chat_completion_with_voice_output_req"]
    assert isinstance(both, dict)
    both["chat_completion_req"]["max_tokens"] = max_tokens
    return made


async def speech(text: str) -> list[bytes]:
    synthesizer = open_synthesizer()
    try:
        chunks = [chunk async for chunk in synthesizer.synthesize(text, VoiceOptions())]
    finally:
        await synthesizer.aclose()
    assert {chunk.rate_hz for chunk in chunks} == {RATE_HZ}
    return [chunk.pcm for chunk in chunks]


@asynccontextmanager
async def model_server(python: Path, folder: Path) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(python.with_name("transformers")),
        "serve",
        "--device",
        "cpu",
        "--port",
        str(port),
    ]
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    async with child(
        *command, "--host", "127.0.0.1", environ=environ, output=folder / "model-server.log"
    ) as process:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while not await answers(session, f"http://127.0.0.1:{port}/health"):
                assert process.returncode is None, (folder / "model-server.log").read_text()[-2000:]
                await asyncio.sleep(0.5)
        yield port


@asynccontextmanager
async def voicechat_server(folder: Path, model_port: int) -> AsyncIterator[tuple[str, str]]:
    config, log = folder / "voicechat.toml", folder / "voicechat.log"
    config.write_text(CONFIG.format(folder=folder, port=model_port))
    assert load_config(config).llm["default"].provider == "openai"
    environ = os.environ | {"VOICECHAT_DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "voicechat", "serve", "--port", "0", "--config", str(config)]
    async with child(*command, environ=environ, output=log) as process:
        async with asyncio.timeout(START_S):
            while (ready := re.search(r"ready.*?(http\S+?)/#key=(\S+)", log.read_text())) is None:
                assert process.returncode is None, log.read_text()[-2000:]
                await asyncio.sleep(0.1)
        yield ready[1], ready[2]


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, command


@asynccontextmanager
async def child(
    *command: str, environ: dict[str, str], output: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="with torch and transformers[serving]",
    )
    asyncio.run(main(parser.parse_args().python))
