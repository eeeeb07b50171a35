"""A whole server with workers, as a child process: started, asked, killed in part."""

import asyncio
import io
import os
import re
import signal
import sys
import time
import wave
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from voicechat.client import (
    ClientConversation,
    PongMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
    connect,
)

PATIENCE_S = 120.0
"""For a machine that has other things to do: only what never comes is a failure."""
PLUGINS = Path(__file__).parent / "plugins"
_ADDRESS = re.compile(r"(http://[^/\s]+)(?:/#key=(\S+))?")


@dataclass
class Fleet:
    """The server, from outside."""

    folder: Path
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    open_streams: int = 2
    """Standard output and error, as long as it may say something there."""
    url: str = ""
    key: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def said(self, *words: str, among: list[str] | None = None) -> str:
        """Wait for a line that holds one of ``words``."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.changed.clear()
                for line in self.lines if among is None else among:
                    if any(word in line for word in words):
                        return line
                assert self.open_streams, f"it ended without a word of {words}: {self.errors[-20:]}"
                await self.changed.wait()

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    def starts(self) -> list[tuple[int, int]]:
        """Number and process id of each worker that was ever started."""
        lines = (self.folder / "started").read_text().splitlines()
        return [(int(number), int(pid)) for number, pid in map(str.split, lines)]

    def pid(self, number: int) -> int:
        return dict(self.starts())[number]

    def open_files(self, name: str) -> list[Path]:
        """Files of that name that the parent has open."""
        files = {
            descriptor.resolve() for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir()
        }
        return [file for file in files if file.name == name]

    async def status(self, path: str) -> int:
        async with ClientSession() as http, http.get(self.url + path) as answer:
            return answer.status

    async def metrics(self) -> dict[str, float]:
        """The samples of ``/metrics``, by name and labels."""
        async with ClientSession() as http, http.get(self.url + "/metrics") as answer:
            text = await answer.text()
        return {
            sample.name
            + "".join(
                f" {name}={label}" for name, label in sorted(sample.labels.items())
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def sessions(self, total: int) -> Counter[int]:
        """How many sessions each worker has, once they are ``total``: each worker keeps
        the text of its metrics for a while.
        """
        prefix = "voicechat_worker_sessions worker="
        async with asyncio.timeout(PATIENCE_S):
            while True:
                samples = await self.metrics()
                held = Counter(
                    {
                        int(name[len(prefix) :]): int(n)
                        for name, n in samples.items()
                        if name.startswith(prefix)
                    }
                )
                if held.total() == total:
                    return held
                await asyncio.sleep(0.05)

    async def holds(self, sessions: int) -> bool:
        return (await self.metrics())["voicechat_sessions"] == sessions

    async def have_all_started(self) -> bool:
        return (self.folder / "started").exists() and len(self.starts()) == 2

    async def is_whole(self) -> bool:
        """Whether two workers are ready, one of them in the place of a dead one."""
        return len(self.starts()) == 3 and await self.status("/readyz") == 200

    async def spread_conversations(
        self, open_ones: AsyncExitStack, workers: int, each: int
    ) -> list[ClientConversation]:
        """Open conversations until every worker has that many: one that is kept from
        its core for a second is passed over meanwhile.
        """
        conversations: list[ClientConversation] = []
        wanted = workers * each
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while len(conversations) < wanted:
                    conversations.append(await open_ones.enter_async_context(self.conversation()))
                held = await self.sessions(len(conversations))
                if all(held[number] >= each for number in range(workers)):
                    return conversations
                wanted += 1

    @asynccontextmanager
    async def conversation(self, key: str = "") -> AsyncIterator[ClientConversation]:
        async with connect(self.url, key=key or self.key) as conversation:
            yield conversation


@asynccontextmanager
async def fleet(
    folder: Path,
    *,
    workers: int = 2,
    server: str = "",
    delta_ms: int = 100,
    fault: str = "",
    port: int = 0,
    descriptors: int = 0,
) -> AsyncIterator[Fleet]:
    """Start a server and wait for nothing. Leaving ends it; fails if anything of it is
    left.

    ``descriptors``: how many each of its processes may have; 0: as many as this one.
    """
    (folder / "voicechat.toml").write_text(
        f"""
[server]
port = {port}
workers = {workers}
drain_s = 20.0
{server}
[admission]
unquestioned_sessions = 1000000
[asr.default]
provider = "worker_services:open_recognizer"
folder = "{folder}"
fault = "{fault}"
[llm.default]
provider = "worker_services:open_chat_model"
delta_ms = {delta_ms}
held = "{folder}/held"
[tts.default]
provider = "worker_services:open_synthesizer"
"""
    )
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VOICECHAT_", "OPENAI_"))
    }
    environ["VOICECHAT_DATA_DIR"] = str(folder / "data")
    environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), *sys.path])
    limited = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"] if descriptors else []
    process = await asyncio.create_subprocess_exec(
        *limited,
        *(sys.executable, "-m", "voicechat", "serve", "--config", str(folder / "voicechat.toml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    running = Fleet(folder, process)
    async with asyncio.TaskGroup() as readers:
        assert process.stdout is not None
        assert process.stderr is not None
        readers.create_task(_read(process.stdout, running.lines, running))
        readers.create_task(_read(process.stderr, running.errors, running))
        try:
            yield running
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
                if "draining" in await running.said("draining", "stopped"):
                    process.send_signal(signal.SIGINT)
                await running.ended()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    await _gone(running)


@asynccontextmanager
async def ready_fleet(
    folder: Path,
    *,
    workers: int = 2,
    server: str = "",
    delta_ms: int = 100,
    fault: str = "",
    descriptors: int = 0,
) -> AsyncIterator[Fleet]:
    """The same, waiting until it is ready."""
    async with fleet(
        folder,
        workers=workers,
        server=server,
        delta_ms=delta_ms,
        fault=fault,
        descriptors=descriptors,
    ) as running:
        take_address(running, await running.said("ready after"))
        yield running


def take_address(running: Fleet, line: str) -> None:
    found = _ADDRESS.search(line)
    assert found is not None
    running.url, running.key = found[1], found[2] or ""


async def _read(stream: asyncio.StreamReader, lines: list[str], running: Fleet) -> None:
    async for line in stream:
        lines.append(line.decode().rstrip())
        running.changed.set()
    running.open_streams -= 1
    running.changed.set()


async def _gone(running: Fleet) -> None:
    """Every process that the server ever had has ended."""
    if not (running.folder / "started").exists():
        return
    deadline = time.monotonic() + PATIENCE_S
    for _, pid in running.starts():
        while _lives(pid):
            assert time.monotonic() < deadline, f"process {pid} was left behind"
            await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: nothing tells from outside."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - as it says
            await asyncio.sleep(0.05)


def wav_of(pcm: bytes) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm)
    return content.getvalue()


async def begin_turn(conversation: ClientConversation) -> list[ServerMessage]:
    """Say something, and hear the answer begin."""
    await conversation.send_audio(bytes(32_000))
    await conversation.complete()
    return await _hear(conversation, ReplyTextMessage)


async def turn(conversation: ClientConversation) -> list[ServerMessage]:
    """Say something, and hear the answer to its end."""
    return await end_turn(conversation, await begin_turn(conversation))


async def end_turn(
    conversation: ClientConversation, begun: list[ServerMessage]
) -> list[ServerMessage]:
    """Hear an answer that has begun to its end; all messages of it."""
    heard = begun + await _hear(conversation, TurnCompletedMessage)
    assert any(isinstance(message, ReplyAudioMessage) for message in heard)
    return heard


async def _hear(conversation: ClientConversation, last: type[ServerMessage]) -> list[ServerMessage]:
    heard: list[ServerMessage] = []
    async with asyncio.timeout(PATIENCE_S):
        while not heard or not isinstance(heard[-1], last):
            heard.append(await conversation.receive())
    return heard


async def lives(conversation: ClientConversation) -> bool:
    """Whether somebody answers."""
    await conversation.ping()
    async with asyncio.timeout(PATIENCE_S):
        while not isinstance(await conversation.receive(), PongMessage):
            pass
    return True
