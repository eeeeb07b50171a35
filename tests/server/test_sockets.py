"""The WebSocket routes over real sockets: who is admitted, what refusals look like, how
a server drains.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from voicechat.agents import Agents
from voicechat.config import AdmissionConfig
from voicechat.dialects.speech_chat.endpoint import PATHS as SPEECH_CHAT_PATHS
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.stream_speech.endpoint import PATHS as STREAM_SPEECH_PATHS
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.errors import AdmissionError, Status
from voicechat.runtime.conversation import Conversation
from voicechat.runtime.services import Aliases, Services
from voicechat.server import mount as mount_module
from voicechat.server.admission import Admission
from voicechat.server.app import build_app
from voicechat.server.auth import Principal, request_keys
from voicechat.server.listener import listening
from voicechat.server.load_shedding import LoadShedder
from voicechat.server.load_signals import LoadLevel, load_limits
from voicechat.server.metric_events import MetricEvent, SessionRefused
from voicechat.server.mount import Mount
from voicechat.server.session_opening import Conditions
from voicechat.session.agent import Agent
from voicechat.session.events import Event, PressureChanged
from voicechat.session.limits import SessionLimits
from voicechat.store.access import ApiEndpoint
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

pytestmark = pytest.mark.real_time

AUDIO_100_MS = bytes(3200)
CHAT = "/api/open-apis/projects/p/chat/speech-chat"
STREAM = "/api/open-apis/projects/p/easyllms/stream-speech"
GOOD = {
    "token": "Bearer k",
    "model": "default",
    "asr_easyllm_id": "default",
    "tts_easyllm_id": "default",
}


class Server:
    def __init__(
        self,
        admission: Admission,
        mount: Mount,
        port: int,
        facts: list[MetricEvent],
        recognizer: ScriptedRecognizer,
    ) -> None:
        self.admission, self.mount = admission, mount
        self.port, self.facts, self.recognizer = port, facts, recognizer

    def url(self, path: str, **query: str) -> str:
        pairs = "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in query.items())
        return f"ws://127.0.0.1:{self.port}{path}?{pairs}"

    def chat(self, **changes: str) -> Any:
        return connect(self.url(CHAT, **{**GOOD, **changes}))


class Doorkeeper:
    """Lets the key "k" in."""

    async def __call__(self, request: aiohttp.web.Request, endpoint: ApiEndpoint) -> Principal:
        key = "k" if "k" in request_keys(request) else ""
        return await self.admit_key(key, "", endpoint)

    async def admit_key(self, key: str, address: str, endpoint: ApiEndpoint) -> Principal:
        if key != "k":
            raise AdmissionError(Status.NOT_AUTHORISED, "token: a valid key is required")
        return Principal("id")


@asynccontextmanager
async def server(
    max_sessions: int = 10,
    limits: SessionLimits | None = None,
    recognizers: tuple[str, ...] = ("default",),
    aliases: Aliases = Aliases(),  # noqa: B008 - it is a value
    load_shedder: LoadShedder | None = None,
    synthesizers: Mapping[str, ScriptedSynthesizer] | None = None,
    agents: Agents | None = None,
) -> AsyncIterator[Server]:
    facts: list[MetricEvent] = []
    recognizer = ScriptedRecognizer(texts=("one two three",), word_ms=100)
    services = Services(
        dict.fromkeys(recognizers, recognizer),
        {"default": ScriptedModel(delta_ms=50)},
        synthesizers or {"default": ScriptedSynthesizer()},
        aliases=aliases,
    )
    admission = Admission(max_sessions, load_shedder=load_shedder)
    mount = Mount(
        (SpeechChatEndpoint(), StreamSpeechEndpoint()),
        services,
        admission,
        Doorkeeper(),
        Conditions(limits=limits or SessionLimits(), observe=facts.append),
        agents=agents,
    )
    async with listening(build_app(mount.routes()), "127.0.0.1", 0) as port:
        try:
            yield Server(admission, mount, port, facts, recognizer)
        finally:
            await mount.drain(0)
    assert admission.sessions == 0
    assert recognizer.open == 0


async def told(client: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(120):
        message: dict[str, Any] = json.loads(await client.recv())
    return message


async def closed(client: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(120):
        await client.wait_closed()
    return client.close_code or 0, client.close_reason or ""


async def until(client: ClientConnection, event_type: str) -> dict[str, Any]:
    while (message := await told(client)).get("event_type") != event_type:
        pass
    return message


@pytest.mark.parametrize("path", SPEECH_CHAT_PATHS)
async def test_the_conversation_is_routed_with_and_without_a_project(path: str) -> None:
    async with (
        server() as running,
        connect(running.url(path.format(project="p"), **GOOD)) as client,
    ):
        assert await told(client) == {"status": 0, "message": "", "event_type": "chat.created"}


@pytest.mark.parametrize("path", STREAM_SPEECH_PATHS)
async def test_recognition_is_routed_with_and_without_a_project(path: str) -> None:
    async with (
        server() as running,
        connect(running.url(path.format(project="p"), apikey="k")) as client,
    ):
        assert await told(client) == {"status": "ok"}


async def test_the_subprotocols_of_a_client_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    offered: Any = ["realtime", "openai-insecure-api-key.SECRET"]
    async with server() as running:
        with caplog.at_level(logging.DEBUG, "aiohttp"), caplog.at_level(logging.DEBUG, "voicechat"):
            url = running.url(CHAT, **GOOD)
            for token in ("k", "wrong"):
                async with connect(
                    running.url(CHAT, **GOOD | {"token": token}), subprotocols=offered
                ) as client:
                    await told(client)
            url = running.url(CHAT, **GOOD)
            async with aiohttp.ClientSession() as http:
                headers = {
                    "Sec-WebSocket-Protocol": "SECRET",
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                }
                async with http.get(url.replace("ws:", "http:"), headers=headers) as answer:
                    await answer.read()
    assert "SECRET" not in caplog.text


async def test_the_service_called_default_is_the_agents_own_and_any_other_is_the_clients() -> None:
    voices = {name: ScriptedSynthesizer() for name in ("default", "warm", "cold")}
    agents = Agents({"default": Agent(), "hotel": Agent(name="hotel", tts="warm")})
    speak = json.dumps(
        {"event_type": "conversation.message.create", "role": "user", "content": "hello"}
    )
    async with server(synthesizers=voices, agents=agents) as running:
        for asked, speaks in (("default", "warm"), ("cold", "cold")):
            async with running.chat(model="hotel", tts_easyllm_id=asked) as client:
                await client.send(speak)
                await until(client, "conversation.chat.completed")
            assert [name for name, voice in voices.items() if voice.texts] == [speaks]
            voices[speaks].texts.clear()


async def test_where_there_is_no_choice_any_name_is_served_and_the_client_is_told() -> None:
    vendors = {
        "model": "Qwen2.5-32B-Instruct",
        "asr_easyllm_id": "6Q0jq2",
        "tts_easyllm_id": "x" * 2000,
    }
    async with server() as running, running.chat(**vendors) as client:
        created = await told(client)
        assert (created["status"], created["event_type"]) == (0, "chat.created")
        message = created["message"]
        assert message.startswith(
            'model: "Qwen2.5-32B-Instruct" is not configured here; default serves'
        )
        assert "; asr_easyllm_id: " in message
        assert "; tts_easyllm_id: " in message
        assert len(message) < 500


async def test_stream_speech_greets_a_stock_client_byte_for_byte_whatever_its_service_is_called() -> (
    None
):
    async with (
        server() as running,
        connect(running.url(STREAM, apikey="k", easyllm_id="6Q0jq2")) as client,
    ):
        assert await told(client) == {"status": "ok"}


async def test_an_alias_is_the_services_own_name() -> None:
    aliases = Aliases(recognizers={"6Q0jq2": "other"}, models={"*": "default"})
    two = server(recognizers=("default", "other"), aliases=aliases)
    async with (
        two as running,
        running.chat(model="gpt-realtime", asr_easyllm_id="6Q0jq2") as client,
    ):
        assert await told(client) == {"status": 0, "message": "", "event_type": "chat.created"}


async def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    aliases = Aliases(recognizers={"6Q0jq2": "other"})
    two = server(recognizers=("default", "other"), aliases=aliases)
    async with two as running, running.chat(asr_easyllm_id="nope") as client:
        message = 'asr_easyllm_id: "nope" is not one of 6Q0jq2, default, other'
        assert (await told(client))["message"] == message


@pytest.mark.parametrize(
    ("changes", "status", "names"),
    [
        ({"token": "Bearer wrong"}, 40101, "token"),
        ({"token": ""}, 40101, "token"),
        ({"model": ""}, 40003, "model"),
        ({"asr_easyllm_id": "nope"}, 40401, "asr_easyllm_id"),
        ({"tts_easyllm_id": ""}, 40003, "tts_easyllm_id"),
    ],
)
async def test_a_refusal_is_told_after_the_upgrade(
    changes: dict[str, str], status: int, names: str
) -> None:
    async with server(recognizers=("default", "other")) as running:
        async with running.chat(**changes) as client:
            answer = await told(client)
            assert (answer["event_type"], answer["status"]) == ("chat.created", status)
            assert answer["message"].startswith(names)
            assert (await closed(client))[0] == 1008
        assert running.facts == [SessionRefused(Status(status))]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"apikey": "wrong"}, "token"),
        ({"apikey": "k", "easyllm_id": "nope"}, "easyllm_id"),
        ({"apikey": "k", "sample_rate": "12"}, "sample_rate"),
        ({"apikey": "k", "format": "midi"}, "format"),
    ],
)
async def test_recognition_is_refused_by_closing_with_a_reason(
    query: dict[str, str], names: str
) -> None:
    two = server(recognizers=("default", "other"))
    async with two as running, connect(running.url(STREAM, **query)) as client:
        code, reason = await closed(client)
        assert code == 1008
        assert names in reason


async def test_a_request_that_is_no_upgrade_is_answered_as_http() -> None:
    async with server() as running, aiohttp.ClientSession() as http:
        url = running.url(CHAT, token="wrong").replace("ws:", "http:")
        async with http.get(url) as answer:
            assert answer.status == 401
            assert (await answer.json())["status"] == 40101


async def test_at_capacity_newcomers_are_refused_and_a_free_place_is_given_again() -> None:
    async with server(max_sessions=1) as running:
        async with running.chat() as first:
            await told(first)
            async with running.chat() as second:
                assert (await told(second))["status"] == 50301
                assert (await closed(second))[0] == 1013
        async with running.chat() as third:
            assert (await told(third))["status"] in (0, 50301)


async def test_a_conversation_learns_how_much_time_there_is_when_it_begins_and_when_it_changes() -> (
    None
):
    heard: list[tuple[Conversation, PressureChanged]] = []

    class Overheard(Conversation):
        def post(self, event: Event) -> None:
            if isinstance(event, PressureChanged):
                heard.append((self, event))
            super().post(event)

    limits = load_limits(AdmissionConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mount_module, "Conversation", Overheard)
        load_shedder = LoadShedder(limits)
        async with server(load_shedder=load_shedder) as running, running.chat() as calm:
            await told(calm)
            load_shedder.level = LoadLevel.SHEDDING
            running.admission.set_load_level(load_shedder.level)
            async with running.chat() as pressed:
                await told(pressed)
                load_shedder.level = LoadLevel.CALM
                running.admission.set_load_level(load_shedder.level)
    first, second = dict.fromkeys(who for who, _ in heard)
    assert [event.short for who, event in heard if who is first] == [True, False]
    assert [event.short for who, event in heard if who is second] == [True, False]


async def test_a_drain_lets_a_turn_end_and_closes_the_idle_at_once() -> None:
    async with server() as running, running.chat() as idle, running.chat() as busy:
        await told(idle)
        await told(busy)
        await busy.send(AUDIO_100_MS * 3)
        await busy.send('{"event_type":"input_audio_buffer.complete"}')
        await until(busy, "input_audio_buffer.completed")
        async with asyncio.TaskGroup() as group:
            group.create_task(running.mount.drain(5))
            assert (await closed(idle))[0] == 1012
            await until(busy, "conversation.chat.completed")
            assert (await closed(busy))[0] == 1012
        async with running.chat() as late:
            assert (await told(late))["status"] == 50301
            assert (await closed(late))[0] == 1012


async def test_a_client_that_asks_is_told_of_a_drain_before_it_is_closed() -> None:
    async with server() as running, running.chat(going_away="1") as client:
        await told(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(running.mount.drain(0.3))
            announced = await told(client)
            assert (announced["event_type"], announced["left_ms"]) == ("session.going_away", 300)
            assert (await told(client))["status"] == 50301
            assert (await closed(client))[0] == 1012


async def test_bye_flushes_the_last_result() -> None:
    async with server() as running, connect(running.url(STREAM, apikey="k")) as client:
        await told(client)
        await client.send(AUDIO_100_MS)
        await client.send("BYE")
        results = [json.loads(message) async for message in client]
        assert results[-1]["text"] == "one two three"
        assert results[-1]["is_sentence_end"]
        assert client.close_code == 1000


async def test_a_recognition_stream_survives_its_connection() -> None:
    async with server() as running:
        url = running.url(STREAM, apikey="k", session="s1")
        async with connect(url) as client:
            assert await told(client) == {"status": "ok", "offset": 0}
            await client.send(AUDIO_100_MS)
            assert (await told(client))["number"] == 1
            client.transport.abort()
        async with connect(url + "&received=1") as client:
            assert await told(client) == {"status": "ok", "offset": len(AUDIO_100_MS)}
            await client.send(AUDIO_100_MS)
            assert (await told(client))["number"] == 2
            await client.send("BYE")
            assert (await closed(client))[0] == 1000
        assert running.recognizer.heard_ms == [200]


async def test_a_message_over_the_limit_closes_with_1009() -> None:
    async with server() as running, running.chat() as client:
        await told(client)
        await client.send(bytes(SessionLimits().frame_bytes + 1))
        assert (await closed(client))[0] == 1009
