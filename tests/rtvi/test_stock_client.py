"""Pipecat's own JavaScript client, unmodified."""

import wave
from pathlib import Path

import pytest
from yarl import URL

from tests.node_packages import node_folder, run_node
from tests.openai_realtime.server import KEY, realtime_server
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]

LAMP = """
[agents.default.client_tools.lamp]
description = "Switch the lamp."
"""


async def test_pipecats_javascript_client(
    recordings: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    folder = node_folder(pytestconfig, Path(__file__).parent / "node")
    story = "This is a long story that goes on and on, and on, and on, and then some more."
    with wave.open(str(recordings / "something.wav")) as file:
        assert file.getframerate() == 16_000
        pcm = file.readframes(file.getnframes()) + bytes(48_000)
    recording = tmp_path / "speech.pcm"
    recording.write_bytes(pcm)
    lamp = ToolCall(0, "call_lamp", "lamp", '{"on": true}')
    model = ScriptedModel(((story,), ("Yes.",), (lamp,), ("There is light.",)))
    async with realtime_server(tmp_path, model, toml=LAMP) as server:
        url = f"ws://127.0.0.1:{URL(server.url).port}/v1/rtvi?token={KEY}"
        await run_node(folder, "client.mjs", url, str(recording))
