import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from voicechat.client import (
    CreatedMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
    connect,
)
from voicechat.config import Config, load_config
from voicechat.errors import AdmissionError, ConfigError, FailureKind, ProviderError, Status
from voicechat.runtime.services import Services
from voicechat.server.serve import credentials, serve_until_signal, serving
from voicechat.store.keys import KeyStore
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

pytestmark = pytest.mark.real_time

SPEECH = bytes(16000 * 2)


class WarmingRecognizer(ScriptedRecognizer):
    """Starts when it is let, and remembers that it was closed."""

    def __init__(self) -> None:
        super().__init__(texts=("hello",))
        self.may_start = asyncio.Event()
        self.closed = False

    async def start(self) -> None:
        await self.may_start.wait()

    async def aclose(self) -> None:
        self.closed = True


class BrokenRecognizer(WarmingRecognizer):
    async def start(self) -> None:
        raise ProviderError("broken", FailureKind.BROKEN, "no model file")


def services(recognizer: ScriptedRecognizer | None = None) -> Services:
    return Services(
        recognizers={"default": recognizer or ScriptedRecognizer()},
        models={"default": ScriptedModel()},
        synthesizers={"default": ScriptedSynthesizer()},
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    environ = {"VOICECHAT_DATA_DIR": str(tmp_path / "data")}
    return load_config(None, environ, {"server": {"port": 0, "drain_s": 2.0}})


@pytest.fixture
def tuned_collector_is_reset(objects_are_frozen_again: None) -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


def test_on_loopback_without_a_key_one_is_made_and_shown(config: Config) -> None:
    made = credentials(config)
    assert made.shown
    assert made.static_keys == {"local": made.shown}
    assert credentials(config).shown == made.shown


def test_a_stored_key_replaces_the_one_made_here(config: Config) -> None:
    credentials(config)
    record, _ = KeyStore(config.data_dir / "keys.sqlite3").create_key("a")
    configured = credentials(config)
    assert configured.shown is None
    assert configured.static_keys == {}
    configured.store.revoke_key(record.id)
    assert credentials(config).shown


def test_a_guest_key_that_is_none_is_named_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"VOICECHAT_DATA_DIR": str(tmp_path / "data"), "VOICECHAT_API_KEY": "environments"}

    def start(guest_key: str) -> str:
        caplog.clear()
        credentials(load_config(None, environ, {"compat": {"guest_key": guest_key}}))
        return caplog.text

    assert "compat.guest_key is no valid key" in start("invented-key")
    assert "invented-key" not in caplog.text
    assert start("environments") == ""
    record, key = KeyStore(tmp_path / "data" / "keys.sqlite3").create_key("guests")
    assert start(key) == ""
    KeyStore(tmp_path / "data" / "keys.sqlite3").revoke_key(record.id)
    assert "compat.guest_key is no valid key" in start(key)


def test_beyond_loopback_without_a_key_is_refused_in_plain_words(tmp_path: Path) -> None:
    environ = {"VOICECHAT_DATA_DIR": str(tmp_path)}
    everywhere = {"server": {"host": "0.0.0.0"}}
    with pytest.raises(ConfigError, match=r"server\.host: 0\.0\.0\.0 .*'voicechat keys create'"):
        credentials(load_config(None, environ, everywhere))
    assert not list(tmp_path.iterdir())
    with_key = load_config(None, {**environ, "VOICECHAT_API_KEY": "long-enough"}, everywhere)
    admitted = credentials(with_key)
    assert (admitted.static_keys, admitted.shown) == ({"environment": "long-enough"}, None)


@pytest.mark.parametrize(
    ("host", "key"), [("127.0.0.1", "a"), ("127.0.0.1", "abc"), ("0.0.0.0", "secret")]
)
def test_a_key_that_is_soon_guessed_is_refused(tmp_path: Path, host: str, key: str) -> None:
    environ = {"VOICECHAT_DATA_DIR": str(tmp_path), "VOICECHAT_API_KEY": key}
    with pytest.raises(
        ConfigError, match=rf"^VOICECHAT_API_KEY: {len(key)} characters are soon guessed"
    ):
        credentials(load_config(None, environ, {"server": {"host": host}}))


async def test_a_conversation_is_held_and_counted(config: Config) -> None:
    async with serving(config, services(), credentials(config), print) as server:
        assert server.key
        async with connect(server.url, key=server.key) as conversation:
            await conversation.send_audio(SPEECH)
            await conversation.complete()
            text, audio = "", b""
            async for message in conversation:
                match message:
                    case ReplyTextMessage(content=content):
                        text += content
                    case ReplyAudioMessage(payload=payload):
                        audio += payload
                    case TurnCompletedMessage():
                        break
                    case _:
                        pass
        async with ClientSession() as session, session.get(f"{server.url}/metrics") as response:
            metrics = await response.text()
    assert text == "Hello there. How are you?"
    assert audio
    assert 'voicechat_turns_total{outcome="spoken"} 1.0' in metrics


async def test_a_wrong_key_is_refused(config: Config) -> None:
    async with serving(config, services(), credentials(config), print) as server:
        with pytest.raises(AdmissionError) as raised:
            async with connect(server.url, key="wrong"):
                raise AssertionError("must not be entered")
    assert raised.value.status is Status.NOT_AUTHORISED


async def test_short_of_time_newcomers_are_refused_and_those_who_are_in_go_on(
    tmp_path: Path,
) -> None:
    always = {"unquestioned_sessions": 1, "loop_lag_shed_ms": 1e-9, "loop_lag_refuse_ms": 1e-9}
    overrides = {"server": {"port": 0, "drain_s": 2.0}, "admission": always}
    config = load_config(None, {"VOICECHAT_DATA_DIR": str(tmp_path)}, overrides)
    async with (
        serving(config, services(), credentials(config), print) as server,
        connect(server.url, key=server.key or "") as conversation,
        ClientSession(headers={"Authorization": f"Bearer {server.key}"}) as session,
    ):
        with pytest.raises(AdmissionError, match="the server is busy; try again in 5 s") as refused:
            await connect_again_and_again(server.url, server.key or "")
        assert refused.value.status is Status.AT_CAPACITY
        async with session.get(f"{server.url}/v1/models") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
        await conversation.send_audio(SPEECH)
        await conversation.complete()
        while not isinstance(await conversation.receive(), TurnCompletedMessage):
            pass
        async with session.get(f"{server.url}/metrics") as response:
            metrics = await response.text()
    assert "voicechat_pressure 2.0" in metrics
    assert 'voicechat_refused_busy_total{figure="loop_lag"} 2.0' in metrics


async def connect_again_and_again(url: str, key: str) -> None:
    """Until the server has measured for long enough to refuse."""
    async with asyncio.timeout(120):
        while True:
            async with connect(url, key=key):
                await asyncio.sleep(0.05)


async def probe(url: str) -> AsyncIterator[int]:
    async with ClientSession() as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(url + path) as response:
                yield response.status


async def test_while_services_warm_up_the_server_lives_but_is_not_ready(config: Config) -> None:
    recognizer = WarmingRecognizer()
    announced: asyncio.Queue[str] = asyncio.Queue()

    async def look() -> list[int]:
        url = (await announced.get()).split()[-1]
        statuses = [status async for status in probe(url)]
        with pytest.raises(AdmissionError, match="starting"):
            async with connect(url, key="any"):
                raise AssertionError("must not be entered")
        recognizer.may_start.set()
        return statuses

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look())
        async with serving(
            config, services(recognizer), credentials(config), announced.put_nowait
        ) as server:
            assert await looking == [200, 503]
            assert [status async for status in probe(server.url)] == [200, 200]
            await server.drain(0)
            assert [status async for status in probe(server.url)] == [200, 503]
    assert recognizer.closed


async def test_a_service_that_does_not_start_stops_the_start_and_all_is_closed(
    config: Config,
) -> None:
    recognizer = BrokenRecognizer()
    with pytest.raises(ExceptionGroup) as raised:
        async with serving(config, services(recognizer), credentials(config), print):
            raise AssertionError("must not be entered")
    assert raised.group_contains(ProviderError, match="no model file")
    assert recognizer.closed


@pytest.mark.usefixtures("tuned_collector_is_reset")
async def test_a_signal_drains_lets_the_turn_end_and_stops(config: Config) -> None:
    lines: list[str] = []
    ready = asyncio.Event()
    slow = Services(
        recognizers={"default": ScriptedRecognizer()},
        models={"default": ScriptedModel(first_ms=200)},
        synthesizers={"default": ScriptedSynthesizer()},
    )

    def announce(line: str) -> None:
        lines.append(line)
        if line.startswith("ready"):
            ready.set()

    async with asyncio.TaskGroup() as tasks:
        serving_task = tasks.create_task(serve_until_signal(config, slow, announce))
        await ready.wait()
        address, key = lines[-1].split()[-1].split("/#key=")
        async with connect(address, key=key) as conversation:
            await conversation.send_audio(SPEECH)
            await conversation.complete()
            await conversation.receive()
            os.kill(os.getpid(), signal.SIGTERM)
            kinds: list[type[ServerMessage]] = []
            while not kinds or kinds[-1] is not TurnCompletedMessage:
                kinds.append(type(await conversation.receive()))
        await serving_task
    assert ReplyAudioMessage in kinds
    assert CreatedMessage not in kinds
    assert [line.split()[0].rstrip(":;") for line in lines] == [
        "warming",
        "ready",
        "draining",
        "stopped",
    ]
    assert gc.get_threshold() == (50_000, 10, 100)


@pytest.mark.real_time
def test_a_server_keeps_numpy_to_one_thread() -> None:
    """Asked of the library that computes its matrices, which begins with two here."""
    script = (
        "import numpy, sys; from threadpoolctl import threadpool_info; from "
        "voicechat.server.serve import tune_threads;"
        "tune_threads(); sys.exit(max((pool['num_threads'] for pool in threadpool_info()), "
        "default=1) != 1)"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    assert (
        subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
    )


async def test_a_signal_during_the_warm_up_stops_at_once(config: Config) -> None:
    recognizer = WarmingRecognizer()

    def announce(line: str) -> None:
        if line.startswith("warming"):
            os.kill(os.getpid(), signal.SIGINT)

    await serve_until_signal(config, services(recognizer), announce)
    assert recognizer.closed
