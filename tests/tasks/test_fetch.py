"""No connection to an internal address is ever opened, however a URL is written and
whatever a name resolves to.

127.0.0.3 stands for the public internet (it is allowed), 127.0.0.1 and ::1 for the
network that must not be reached.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from tests.unused_port import unused_port
from voicechat.errors import RemoteProtocolError
from voicechat.server.fetch import (
    LOOKUPS,
    MAX_REDIRECTS,
    FetchError,
    FetchPolicy,
    NameResolver,
    check_url,
    fetch,
    is_public,
)

pytestmark = pytest.mark.real_time

PUBLIC, INTERNAL = "127.0.0.3", "127.0.0.1"
CONTENT = b"RIFF....WAVE and so on" * 1000


@dataclass
class Answers(AbstractResolver):
    """Resolves each name to its next address; the last one stays."""

    of: dict[str, list[str]]
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self.of.get(host)
        if addresses is None:  # as a system's resolver does with 0x7f000001 and the like
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
            hosts: Sequence[str] = [str(entry[4][0]) for entry in found]
        else:
            hosts = [addresses.pop(0) if len(addresses) > 1 else addresses[0]]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in hosts
        ]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Net:
    """A server on the "public" address, and one on the internal ones that counts who
    comes; both on one port.
    """

    port: int
    internal_connections: int = 0
    locations: dict[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> FetchPolicy:
        return FetchPolicy(
            allowed_networks=(ip_network(f"{PUBLIC}/32"),),
            ports=frozenset({self.port}),
            max_bytes=len(CONTENT),
        )

    async def fetch(self, url: str, **names: list[str]) -> bytes:
        got = bytearray()

        async def write(piece: bytes) -> None:
            got.extend(piece)

        answers = {name.replace("_", "."): addresses for name, addresses in names.items()}
        await fetch(check_url(url, self.policy), write, self.policy, Answers(answers))
        return bytes(got)


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    net = Net(0)

    async def public(request: web.Request) -> web.StreamResponse:
        if request.path in net.locations:
            return web.Response(status=302, headers={"Location": net.locations[request.path]})
        match request.path:
            case "/large":
                return web.Response(body=CONTENT + b".")
            case "/endless":
                response = web.StreamResponse()
                response.enable_chunked_encoding()
                await response.prepare(request)
                while True:
                    await response.write(CONTENT)
            case "/gzip":
                return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
            case "/missing":
                return web.Response(status=404)
            case "/secrets":
                return web.Response(text=str({"Authorization", "Cookie"} & set(request.headers)))
            case _:
                pass
        return web.Response(body=CONTENT)

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        net.internal_connections += 1
        writer.close()

    app = web.Application()
    app.router.add_get("/{path:.*}", public)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    net.port = unused_port()
    await web.TCPSite(runner, PUBLIC, net.port).start()
    canaries = [await asyncio.start_server(count, INTERNAL, net.port)]
    if socket.has_ipv6:
        canaries.append(await asyncio.start_server(count, "::1", net.port))
    yield net
    for canary in canaries:
        canary.close()
    await runner.cleanup()


async def test_a_public_address_is_fetched(net: Net) -> None:
    assert await net.fetch(f"http://{PUBLIC}:{net.port}/a.wav") == CONTENT
    assert await net.fetch(f"http://a.example:{net.port}/a.wav", a_example=[PUBLIC]) == CONTENT


INTERNAL_FORMS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://[::]:{port}/",
    "http://127.127.127.127:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://user:secret@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@a.example/",
    "http://a.example@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@a.example/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://[fd00:ec2::254]:{port}/latest/meta-data/",
    "http://10.0.0.1:{port}/",
    "http://100.100.100.200:{port}/",
    "http://192.168.0.1:{port}/",
    "http://224.0.0.1:{port}/",
]


@pytest.mark.parametrize("form", INTERNAL_FORMS)
async def test_an_internal_address_is_never_dialled(form: str, net: Net) -> None:
    with pytest.raises((FetchError, RemoteProtocolError)) as refused:
        await net.fetch(form.replace("{port}", str(net.port)))
    assert net.internal_connections == 0
    assert "127" not in str(refused.value)
    assert "time" not in str(refused.value), "it was dialled, and nobody answered"


@pytest.mark.parametrize(
    "form",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://a.example/a.wav",
        "//a.example/a.wav",
        "a.wav",
        "",
        "http://",
        "http://a.example:22/",
        "http://a.example:0/",
        "http://a.example:99999/",
        "http://[::1/",
        "http://a.example/" + "a" * 5000,
    ],
)
def test_what_is_no_address_of_a_recording_is_refused_before_anything_is_asked(form: str) -> None:
    with pytest.raises(RemoteProtocolError, match="audio_url: "):
        check_url(form, FetchPolicy())


async def test_a_name_whose_answer_changes_is_checked_where_it_is_dialled(net: Net) -> None:
    names = [PUBLIC, INTERNAL]
    assert await net.fetch(f"http://a.example:{net.port}/", a_example=names) == CONTENT
    with pytest.raises(FetchError, match="not allowed"):
        await net.fetch(f"http://a.example:{net.port}/", a_example=names)
    assert net.internal_connections == 0


async def test_a_redirect_resolves_and_is_checked_anew(net: Net) -> None:
    net.locations["/again"] = f"http://a.example:{net.port}/"
    with pytest.raises(FetchError, match="not allowed"):
        await net.fetch(f"http://a.example:{net.port}/again", a_example=[PUBLIC, INTERNAL])
    assert net.internal_connections == 0


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://2130706433:{port}/",
        "http://[::1]:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/",
        "http://user:secret@127.0.0.3:{port}/",
        "http://127.0.0.3:22/",
        "http://[",
        "",
    ],
)
async def test_a_redirect_leads_nowhere_that_a_url_may_not(location: str, net: Net) -> None:
    net.locations["/r"] = location.replace("{port}", str(net.port))
    with pytest.raises(FetchError):
        await net.fetch(f"http://{PUBLIC}:{net.port}/r")
    assert net.internal_connections == 0


async def test_redirects_are_followed_but_not_for_ever(net: Net) -> None:
    for hop in range(MAX_REDIRECTS + 1):
        net.locations[f"/{hop}"] = f"/{hop + 1}"
    assert await net.fetch(f"http://{PUBLIC}:{net.port}/1") == CONTENT
    with pytest.raises(FetchError, match="more than 3 times"):
        await net.fetch(f"http://{PUBLIC}:{net.port}/0")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/large", "bytes"),
        ("/endless", "bytes"),
        ("/gzip", "compressed"),
        ("/missing", "status 404"),
    ],
)
async def test_what_is_too_large_or_not_there_is_said(path: str, told: str, net: Net) -> None:
    with pytest.raises(FetchError, match=told):
        await net.fetch(f"http://{PUBLIC}:{net.port}{path}")


async def test_no_secret_of_ours_travels(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{INTERNAL}:{net.port}")
    assert await net.fetch(f"http://{PUBLIC}:{net.port}/secrets") == b"set()"
    assert net.internal_connections == 0


async def test_a_network_of_ones_own_can_be_allowed(net: Net) -> None:
    policy = FetchPolicy(allowed_networks=(ip_network("127.0.0.0/8"),), ports=frozenset({net.port}))
    with pytest.raises(
        FetchError, match="cannot be fetched"
    ):  # The canary speaks no HTTP; but it was reached.
        await fetch(URL(f"http://{INTERNAL}:{net.port}/"), _ignore, policy, Answers({}))
    assert net.internal_connections


async def _ignore(_: bytes) -> None: ...


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("8.8.8.8", True),
        ("100.64.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("ff02::1", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("2001:0:1::1", False),
        ("64:ff9b::808:808", False),
    ],
)
def test_public_means_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize(
    "address",
    [
        *(
            "192.0.0.192",
            "168.63.129.16",
            "161.26.0.7",
            "166.9.0.1",
            "100.100.100.200",
            "169.254.170.2",
        ),
        *(
            "192.88.99.1",
            "192.31.196.1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "3fff::1",
            "5f00::1",
            "2001:20::1",
        ),
        *("::ffff:168.63.129.16", "0.0.0.0", "::", "233.252.0.1"),
    ],
)
def test_addresses_of_clouds_and_of_no_host_are_never_public(address: str) -> None:
    assert not FetchPolicy().allows(ipaddress.ip_address(address))


class DeadNameServer:
    """Stands for the system's resolver: names of ``dead.example`` are never
    answered.
    """

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.gone = threading.Event()
        self.asking = 0

    def getaddrinfo(self, host: str, port: int, **more: Any) -> list[Any]:
        self.asking += 1
        self.asked.release()
        if host.endswith("dead.example"):
            self.gone.wait()
            raise socket.gaierror("nobody answers")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadNameServer]:
    server = DeadNameServer()
    monkeypatch.setattr("voicechat.server.fetch.socket.getaddrinfo", server.getaddrinfo)
    yield server
    server.gone.set()


async def test_names_that_are_never_answered_hold_up_only_whoever_named_them(
    net: Net, name_server: DeadNameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicechat.server.fetch.RESOLVE_S", 0.3)
    names = NameResolver()

    async def ask(key: str, host: str) -> bytes:
        got = bytearray()

        async def write(piece: bytes) -> None:
            got.extend(piece)

        await fetch(URL(f"http://{host}:{net.port}/"), write, net.policy, names.resolver_for(key))
        return bytes(got)

    loop = asyncio.get_running_loop()
    dead = [loop.create_task(ask("mallory", f"{number}.dead.example")) for number in range(60)]
    for _ in range(LOOKUPS):
        await asyncio.to_thread(name_server.asked.acquire)
    assert await ask("alice", "a.example") == CONTENT
    # The loop's own threads, which everybody else resolves names with, are free.
    assert await loop.run_in_executor(None, lambda: 1) == 1
    for failure in await asyncio.gather(*dead, return_exceptions=True):
        assert isinstance(failure, FetchError)
        assert "in time" in failure.reason
    assert name_server.asking == LOOKUPS + 1, "no more threads than there may be"
    name_server.gone.set()


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"RIFF")
            await asyncio.sleep(0.02)
    return response


async def test_a_server_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicechat.server.min_data_rate.SPARE_S", 0.1)
    app = web.Application()
    app.router.add_get("/", drip)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, PUBLIC, 0).start()
    port = runner.addresses[0][1]
    policy = FetchPolicy(allowed_networks=(ip_network(f"{PUBLIC}/32"),), ports=frozenset({port}))
    with pytest.raises(FetchError, match="less than 4000 bytes a second"):
        await fetch(URL(f"http://{PUBLIC}:{port}/"), _ignore, policy, Answers({}))
    await runner.cleanup()


async def test_a_head_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voicechat.server.fetch.HEAD_S", 0.2)

    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not writer.is_closing():
                writer.write(b"X-A: b\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, PUBLIC, 0)
    port = server.sockets[0].getsockname()[1]
    policy = FetchPolicy(allowed_networks=(ip_network(f"{PUBLIC}/32"),), ports=frozenset({port}))
    with pytest.raises(FetchError, match="in time"):
        await fetch(URL(f"http://{PUBLIC}:{port}/"), _ignore, policy, Answers({}))
    await gone.wait()
    server.close()
