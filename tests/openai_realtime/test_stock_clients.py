"""Stock clients, unmodified: only the URL and the key are ours."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from agents import GuardrailFunctionOutput, OutputGuardrail, function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, realtime_handoff
from openai import AsyncOpenAI, BadRequestError
from yarl import URL

from tests.node_packages import node_folder, run_node
from tests.openai_realtime.client import judged
from tests.openai_realtime.server import (
    KEY,
    LONG_STORY,
    agents_model,
    called,
    realtime_server,
    speech,
)
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]

NODE = Path(__file__).parent / "node"
LAMP = {"type": "function", "name": "lamp", "parameters": {"type": "object"}}


class Talk:
    """The connection of the ``openai`` package; each event is read by its models."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.events: list[dict[str, Any]] = []

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            event = judged(await self._connection.recv_bytes())
            self.events.append(event)
            assert event["type"] != "error", event
            if event["type"] == kind:
                return event

    async def speak(self, pcm: bytes) -> None:
        for start in range(0, len(pcm), 4800):
            audio = base64.b64encode(pcm[start : start + 4800]).decode()
            await self._connection.input_audio_buffer.append(audio=audio)
            await asyncio.sleep(0.1)


async def test_the_python_package_speaks_hands_free_and_interrupts(
    recordings: Path, tmp_path: Path
) -> None:
    model = ScriptedModel(((LONG_STORY,), ("Yes.",)))
    pcm = speech(recordings)
    async with realtime_server(tmp_path, model) as server, asyncio.timeout(120):
        client = AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1")
        async with client.realtime.connect(model="gpt-realtime") as connection:
            talk = Talk(connection)
            await talk.until("session.created")
            transcription: Any = {"input": {"transcription": {"model": "whisper-1"}}}
            await connection.session.update(session={"type": "realtime", "audio": transcription})
            await talk.until("session.updated")
            speaking = asyncio.create_task(talk.speak(pcm + pcm))
            committed = await talk.until("input_audio_buffer.committed")
            delta = await talk.until("response.output_audio.delta")
            started = await talk.until("input_audio_buffer.speech_started")
            assert started["item_id"] != committed["item_id"]
            await connection.conversation.item.truncate(
                item_id=delta["item_id"], content_index=0, audio_end_ms=300
            )
            await talk.until("conversation.item.truncated")
            done = await talk.until("response.done")
            assert done["response"]["output"][0]["content"][0]["transcript"] == "Yes."
            speaking.cancel()
        kinds = [event["type"] for event in talk.events]
        assert kinds.count("response.created") == kinds.count("response.done")
        said = [str(m["content"]) for m in model.requests[-1].messages if m["role"] == "assistant"]
        assert said == ["This"]


async def test_the_python_package_types_calls_and_ends_turns_itself(
    recordings: Path, tmp_path: Path
) -> None:
    model = ScriptedModel(((called("lamp"),), ("There is light.",), ("I hear you.",)))
    async with realtime_server(tmp_path, model) as server, asyncio.timeout(120):
        client = AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1")
        async with client.realtime.connect(model="gpt-realtime") as connection:
            talk = Talk(connection)
            session: Any = {
                "type": "realtime",
                "output_modalities": ["text"],
                "tools": [LAMP],
                "audio": {"input": {"turn_detection": None}},
            }
            await connection.session.update(session=session)
            text: Any = {"type": "input_text", "text": "light please"}
            await connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [text]}
            )
            await connection.response.create()
            done = await talk.until("response.done")
            call_id = done["response"]["output"][0]["call_id"]
            await connection.conversation.item.create(
                item={"type": "function_call_output", "call_id": call_id, "output": "on"}
            )
            await connection.response.create()
            assert (await talk.until("response.output_text.done"))["text"] == "There is light."
            await talk.until("response.done")
            await talk.speak(speech(recordings)[: 48 * 900])
            await connection.input_audio_buffer.commit()
            await connection.response.create()
            assert (await talk.until("response.output_text.done"))["text"] == "I hear you."


async def test_a_client_secret_opens_one_session_with_its_configuration(tmp_path: Path) -> None:
    model = ScriptedModel((("Hello.",),))
    async with (
        asyncio.timeout(120),
        realtime_server(tmp_path, model) as server,
        AsyncOpenAI(api_key=KEY, base_url=f"{server.url}/v1") as client,
    ):
        bound: Any = {
            "type": "realtime",
            "instructions": "Be brief.",
            "audio": {"input": {"turn_detection": None}},
        }
        made = await client.realtime.client_secrets.create(session=bound)
        assert made.value.startswith("ek_")
        assert made.session.type == "realtime"
        assert made.session.instructions == "Be brief."
        browser = AsyncOpenAI(api_key=made.value, base_url=f"{server.url}/v1")
        async with browser.realtime.connect(model="gpt-realtime") as connection:
            session = (await Talk(connection).until("session.created"))["session"]
            assert session["instructions"] == "Be brief."
            assert session["audio"]["input"]["turn_detection"] is None
        async with browser.realtime.connect(model="gpt-realtime") as connection:
            error = judged(await connection.recv_bytes())["error"]
            assert error["code"] == "invalid_api_key"
        wrong: Any = {"type": "realtime", "output_modalities": ["video"]}
        with pytest.raises(BadRequestError, match=r"session\.output_modalities"):
            await client.realtime.client_secrets.create(session=wrong)


@function_tool
def lamp() -> str:
    """Switch the lamp."""
    return "it is on"


async def swears(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info={}, tripwire_triggered="damn" in output)


async def test_the_agents_package_calls_hands_off_guards_and_remembers(tmp_path: Path) -> None:
    model = ScriptedModel(
        (
            ("Let me see. ", called("lamp")),
            ("There is light.",),
            (called("transfer_to_other"),),
            ("I am the other.",),
            ("That damn thing, it never works as I want it to. ", LONG_STORY),
            ("I am sorry.",),
        ),
        delta_ms=50,
    )
    other = RealtimeAgent[Any](name="other", instructions="You are the other.")
    first = RealtimeAgent[Any](
        name="first",
        instructions="You are the first.",
        tools=[lamp],
        handoffs=[realtime_handoff(other)],
    )
    guardrail = OutputGuardrail[Any](guardrail_function=swears, name="no swearing")
    runner = RealtimeRunner(
        first,
        config={
            "output_guardrails": [guardrail],
            "guardrails_settings": {"debounce_text_length": 10},
            "tracing_disabled": True,
        },
    )
    async with realtime_server(tmp_path, model) as server, asyncio.timeout(120):
        url = f"ws://127.0.0.1:{URL(server.url).port}/v1/realtime?model=gpt-realtime"
        session = await runner.run(model_config={"url": url, "api_key": KEY})
        async with session:
            seen: list[str] = []
            refused: list[Any] = []

            async def until(*kinds: str) -> None:
                left = list(kinds)
                async for event in session:
                    seen.append(event.type)
                    data = getattr(event, "data", None)
                    if event.type == "raw_model_event" and data is not None:
                        if data.type == "raw_server_event":
                            judged(json.dumps(data.data))
                        elif data.type in ("error", "exception"):
                            refused.append(data)
                    if event.type == "error":
                        refused.append(event)
                    if left and event.type == left[0]:
                        left.pop(0)
                    if not left:
                        return

            await session.send_message("light please")
            await until("agent_end", "tool_end", "agent_end")
            await session.send_message("give me to the other")
            await until("agent_end", "handoff", "agent_end")
            await session.send_message("swear")
            await until("guardrail_tripped", "agent_end", "agent_end")
            assert refused == []
            history = [getattr(item, "role", item.type) for item in session._history]
        assert history.count("user") >= 3
        assert "function_call" in history
        systems = [request.messages[0]["content"] for request in model.requests]
        assert str(systems[0]) == "You are the first."
        assert str(systems[3]) == "You are the other."


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config) -> Path:
    """The stock clients from npm."""
    return node_folder(pytestconfig, NODE)


@asynccontextmanager
async def behind_tls(port: int) -> AsyncIterator[str]:
    """Put what ends TLS in front of a port, as in front of any server on the internet:
    the npm package speaks to nothing else. Gives the base URL.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    copying = asyncio.TaskGroup()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        copying.create_task(copy(reader, behind_writer))
        copying.create_task(copy(behind_reader, writer))

    async with copying, await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def test_the_npm_package(recordings: Path, tmp_path: Path, folder: Path) -> None:
    model = ScriptedModel(
        ((called("lamp"),), ("There is light.",), (LONG_STORY, LONG_STORY)), delta_ms=300
    )
    file = tmp_path / "speech.pcm"
    file.write_bytes(speech(recordings))
    async with (
        realtime_server(tmp_path, model) as server,
        behind_tls(int(URL(server.url).port or 0)) as url,
    ):
        await run_node(folder, "openai_client.mjs", url, KEY, str(file))


async def test_the_agents_npm_package(tmp_path: Path, folder: Path) -> None:
    model = agents_model()
    async with realtime_server(tmp_path, model) as server:
        await run_node(folder, "agents_client.mjs", server.url, KEY)
