import asyncio

import pytest

from tests.providers.openai_service import unused_url
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.websocket_link import open_link

pytestmark = pytest.mark.real_time

URL = "ws://only-the-proxy-knows.invalid/socket"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def failure(url: str = URL) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await open_link("test", url, connect_s=5, send_s=5)
    return caught.value


async def test_the_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    refused = await failure()
    server.close()
    assert asked == [b"CONNECT only-the-proxy-knows.invalid:80 HTTP/1.1\r\n"]
    assert refused.kind is FailureKind.CONNECTIVITY
    assert "proxy" in str(refused)


async def test_a_service_on_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", unused_url())
    assert "proxy" not in str(await failure(unused_url().replace("http", "ws")))
