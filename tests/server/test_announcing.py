"""The server is told to the local network, by zeroconf's own browser."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from voicechat.server.announcing import OTA, WYOMING, Announced, announcing, info_of, reachable

HERE = ["127.0.0.1"]


def test_a_service_is_written_with_its_address_and_the_machines_name() -> None:
    service = Announced(kind=OTA, host="10.1.2.3", port=8000, properties={"path": "/xiaozhi/ota/"})
    info = info_of(service)
    assert info.name.endswith(f".{OTA}")
    assert (info.addresses, info.port) == ([ipaddress.ip_address("10.1.2.3").packed], 8000)
    assert info.properties == {b"path": b"/xiaozhi/ota/"}
    assert info.server == f"{socket.gethostname().partition('.')[0]}.local."


@pytest.mark.parametrize(
    ("host", "told"), [("127.0.0.1", 0), ("::1", 0), ("localhost", 0), ("10.1.2.3", 1)]
)
def test_what_nobody_else_reaches_is_not_announced(host: str, told: int) -> None:
    assert len(reachable([Announced(kind=WYOMING, host=host, port=1)])) == told


@asynccontextmanager
async def watching(kind: str) -> AsyncIterator[asyncio.Queue[tuple[ServiceStateChange, str]]]:
    """What a browser on this machine's own interface sees of a kind of service."""
    seen: asyncio.Queue[tuple[ServiceStateChange, str]] = asyncio.Queue()

    def note(
        zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        seen.put_nowait((state_change, name))

    network = AsyncZeroconf(interfaces=HERE, ip_version=IPVersion.V4Only)
    browser = AsyncServiceBrowser(network.zeroconf, kind, handlers=[note])
    try:
        yield seen
    finally:
        await browser.async_cancel()
        await network.async_close()


@pytest.mark.long
@pytest.mark.real_time
async def test_a_browser_finds_the_service_and_sees_it_go() -> None:
    service = Announced(kind=WYOMING, host="10.1.2.3", port=10_300)
    name = info_of(service).name
    async with asyncio.timeout(60), watching(WYOMING) as seen:
        async with announcing([service], HERE):
            while await seen.get() != (ServiceStateChange.Added, name):
                pass
        while await seen.get() != (ServiceStateChange.Removed, name):
            pass
