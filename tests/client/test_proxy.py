"""The client goes through the proxy of the environment, as its peers do."""

import asyncio

import pytest

from voicechat.client import Api, ConnectionLostError, connect
from voicechat.client.transcription import TranscriptionApi
from voicechat.errors import VoiceChatError
from voicechat.providers.openai_http import OpenAIEndpoint

pytestmark = pytest.mark.real_time

HOST = "only-the-proxy-knows.invalid"
SECRET = "sk-only-the-service-knows"


async def test_every_connection_is_made_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).rpartition(b" ")[0])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with Api(f"http://{HOST}", key="k") as api:
        with pytest.raises(VoiceChatError):
            await api.models()
    async with TranscriptionApi(f"http://{HOST}", key="k") as tasks:
        with pytest.raises(VoiceChatError):
            await tasks.task("t")
    with pytest.raises(ConnectionLostError):
        async with connect(f"http://{HOST}", key="k"):
            pass
    server.close()
    assert asked[0] == f"GET http://{HOST}/v1/models".encode()
    assert asked[1].startswith(f"GET http://{HOST}/api/".encode())
    assert asked[2] == f"CONNECT {HOST}:80".encode()


async def test_a_proxy_that_passes_tls_on_is_not_shown_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    heads: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with Api(f"https://{HOST}", key=SECRET) as api:
        with pytest.raises(VoiceChatError):
            await api.models()
    async with TranscriptionApi(f"https://{HOST}", key=SECRET) as tasks:
        with pytest.raises(VoiceChatError):
            await tasks.task("t")
    endpoint = OpenAIEndpoint(f"https://{HOST}/v1", SECRET, headers={"api-key": SECRET})
    with pytest.raises(VoiceChatError):
        await endpoint.probe()
    await endpoint.aclose()
    with pytest.raises(ConnectionLostError):
        async with connect(f"https://{HOST}", key=SECRET):
            pass
    server.close()
    assert len(heads) == 4
    for head in heads:
        assert head.startswith(f"CONNECT {HOST}:443 ".encode())
        assert SECRET.encode() not in head
