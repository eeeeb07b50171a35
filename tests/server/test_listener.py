import asyncio
import logging
import socket

import pytest
from aiohttp import ClientSession, web

from voicechat.errors import ConfigError
from voicechat.server.app import build_app
from voicechat.server.auth_throttle import network_of
from voicechat.server.listener import base_url, bind, is_loopback, listening


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.7", "localhost.example", "my-machine", ""]
)
def test_hosts_that_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fd00::7", "http://[fd00::7]:8000"),
        ("voice.example", "http://voice.example:8000"),
    ],
)
def test_the_address_that_a_person_opens(host: str, url: str) -> None:
    assert base_url(host, 8000) == url


@pytest.mark.real_time
async def test_a_port_in_use_is_said_in_plain_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server\.port: {port} is in use"):
            async with listening(build_app([]), "127.0.0.1", port):
                pass


@pytest.mark.real_time
@pytest.mark.parametrize("host", ["::", "[::]", "0::0"])
async def test_the_ipv6_any_address_is_every_address_of_the_machine(host: str) -> None:
    async def who(request: web.Request) -> web.Response:
        return web.Response(text=network_of(request.remote or ""))

    async with (
        listening(build_app([web.get("/", who)]), host, 0) as port,
        ClientSession() as session,
    ):
        for address, seen in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::/64")):
            async with session.get(f"http://{address}:{port}/") as answer:
                assert await answer.text() == seen, "one sender each, also by IPv4 in IPv6"


@pytest.mark.real_time
async def test_all_addresses_of_a_name_have_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    bound = await bind("a-name", 0)
    try:
        (first, port), (second, same) = (each.getsockname() for each in bound)
        assert (first, second, same) == ("127.0.0.1", "127.0.0.2", port), (
            "and an address that is not here is left out"
        )
    finally:
        for each in bound:
            each.close()


@pytest.mark.real_time
async def test_an_address_of_another_machine_is_said_in_plain_words() -> None:
    with pytest.raises(ConfigError, match=r"server\.host: cannot listen on 192\.0\.2\.1"):
        async with listening(build_app([]), "192.0.2.1", 0):
            pass


@pytest.mark.real_time
async def test_the_log_holds_nothing_that_a_client_wrote(caplog: pytest.LogCaptureFixture) -> None:
    async def greet(_: web.Request) -> web.Response:
        return web.Response()

    app = build_app([web.get("/greet/{name}", greet)])
    secret = "SECRET"
    with caplog.at_level(logging.DEBUG):
        async with listening(app, "127.0.0.1", 0) as port:
            async with ClientSession(
                headers={"User-Agent": secret, "Referer": f"http://{secret}/"}
            ) as session:
                for path in (f"/greet/{secret}?token={secret}", f"/{secret}?token={secret}"):
                    async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                        await response.read()
                async with session.request(secret, f"http://127.0.0.1:{port}/greet/a") as response:
                    await response.read()
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.setblocking(False)
                await _exchange(
                    raw, f"GET /?token={secret} HTTP/1.1\r\n{secret} : x\r\n\r\n".encode()
                )
    assert "127.0.0.1 GET /greet/{name} 200" in caplog.text
    assert "127.0.0.1 GET (no route) 404" in caplog.text
    assert "127.0.0.1 (other) (no route) 400" in caplog.text
    assert secret not in caplog.text


async def _exchange(raw: socket.socket, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(raw, request)
    return await loop.sock_recv(raw, 65536)
