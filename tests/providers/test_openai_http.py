import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.providers.openai_service import Service, cut_off, hanging_up, saying, serving, unused_url
from voicechat.errors import ConfigError, FailureKind, ProviderError
from voicechat.providers import openai
from voicechat.providers.openai_http import OpenAIEndpoint, reach_end, read_whole
from voicechat.testing.conformance import check_probe_fails

pytestmark = pytest.mark.real_time


@asynccontextmanager
async def connected(
    api_key: str = "secret", **settings: Any
) -> AsyncIterator[tuple[Service, OpenAIEndpoint]]:
    async with serving() as service:
        endpoint = OpenAIEndpoint(service.base_url, api_key, **settings)
        try:
            yield service, endpoint
        finally:
            await endpoint.aclose()


async def ask(endpoint: OpenAIEndpoint) -> bytes:
    async with endpoint.post(
        "audio/speech", b"{}", {"Content-Type": "application/json"}
    ) as response:
        return await read_whole(response.content, 1 << 20)


async def failure(endpoint: OpenAIEndpoint) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await ask(endpoint)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (401, FailureKind.REJECTED),
        (403, FailureKind.REJECTED),
        (404, FailureKind.REJECTED),
        (408, FailureKind.TIMEOUT),
        (429, FailureKind.RATE_LIMIT),
        (500, FailureKind.CONNECTIVITY),
        (503, FailureKind.CONNECTIVITY),
        (204, FailureKind.BROKEN),
        (307, FailureKind.BROKEN),
    ],
)
async def test_statuses(status: int, kind: FailureKind) -> None:
    async with connected() as (service, endpoint):
        service.status = status
        assert (await failure(endpoint)).kind is kind
        assert (
            len(service.asked) == 1
        )  # a redirect is not followed: it could take the key elsewhere


async def test_the_codes_of_an_error_are_told_and_its_sentence_is_not() -> None:
    body = (
        b'{"error": {"message": "no model my secret", "type": "x y z", "code": "model_not_found", '
        b'"param": null}}'
    )
    async with connected() as (service, endpoint):
        service.answers = [saying(body, status=404)]
        told = str(await failure(endpoint))
        assert told.startswith(
            "openai: rejected: HTTP status 404, code model_not_found; see base_url"
        )
        assert "secret" not in told


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"error": 7}', b"[]", b'{"error": null}', b"\xff", b"x" * 1_000_000]
)
async def test_any_body_of_an_error_will_do(body: bytes) -> None:
    async with connected() as (service, endpoint):
        service.answers = [saying(body, status=502)]
        assert str(await failure(endpoint)) == "openai: connectivity: HTTP status 502"


async def test_an_error_whose_body_does_not_end_is_told_all_the_same() -> None:
    async with connected() as (service, endpoint):
        service.answers = [saying(b"{", status=503, pause_s=60)]
        assert (await failure(endpoint)).kind is FailureKind.CONNECTIVITY


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1", "retry-after-ms": "250"}, 0.25),
        (
            {
                "Retry-After": "Fri, 20 Nov 2026 12:00:09 GMT",
                "Date": "Fri, 20 Nov 2026 12:00:00 GMT",
            },
            9,
        ),
        (
            {
                "Retry-After": "Fri, 20 Nov 2026 11:00:00 GMT",
                "Date": "Fri, 20 Nov 2026 12:00:00 GMT",
            },
            None,
        ),
        (
            {
                "Retry-After": "Fri, 20 Nov 2026 12:00:09 -0000",
                "Date": "Fri, 20 Nov 2026 12:00:00 GMT",
            },
            None,
        ),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({}, None),
    ],
)
async def test_when_to_try_again_is_told(headers: dict[str, str], wait_s: float | None) -> None:
    async with connected() as (service, endpoint):
        service.status, service.headers = 429, headers
        assert (await failure(endpoint)).retry_after_s == wait_s


async def test_a_connection_is_used_again() -> None:
    async with connected() as (service, endpoint):
        service.answers = [saying(b"abc")]
        for _ in range(3):
            assert await ask(endpoint) == b"abc"
        assert len(service.peers) == 1


async def test_starting_warms_the_connection_of_the_first_request() -> None:
    async with connected() as (service, endpoint):
        await endpoint.start()
        assert service.warmed_up == 1
        await ask(endpoint)
        assert len(service.peers) == 1


async def test_an_endpoint_that_is_down_does_not_hinder_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = OpenAIEndpoint(unused_url(), "secret")
    with caplog.at_level(logging.WARNING):
        await endpoint.start()
    assert [record.getMessage().endswith("ClientConnectorError") for record in caplog.records] == [
        True
    ]
    assert "secret" not in caplog.text
    assert (await failure(endpoint)).kind is FailureKind.CONNECTIVITY
    await endpoint.aclose()


async def test_a_connection_that_was_closed_at_that_moment_is_replaced() -> None:
    async with connected() as (service, endpoint):
        service.answers = [saying(b"one"), hanging_up, saying(b"two")]
        assert await ask(endpoint) == b"one"
        assert await ask(endpoint) == b"two"
        assert len(service.peers) == 2


async def test_a_server_that_always_hangs_up_is_not_asked_for_ever() -> None:
    async with connected() as (service, endpoint):
        service.answers = [hanging_up]
        assert (await failure(endpoint)).kind is FailureKind.CONNECTIVITY
        assert len(service.asked) == 2


async def test_an_answer_that_breaks_off_is_not_asked_for_again() -> None:
    async with connected() as (service, endpoint):
        service.answers = [cut_off(b"half")]
        assert (await failure(endpoint)).kind is FailureKind.CONNECTIVITY
        assert len(service.asked) == 1


async def test_nobody_listens() -> None:
    url = unused_url()
    endpoint = OpenAIEndpoint(url.replace("127", "user:password@127"), "")
    refused = await failure(endpoint)
    assert refused.kind is FailureKind.CONNECTIVITY
    # The address helps; what may stand in front of it is nobody's business.
    assert url.split("/")[2] in str(refused)
    assert "password" not in str(refused)
    await endpoint.aclose()


async def test_a_connection_that_cannot_be_made_is_not_tried_again() -> None:
    tried = 0

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    endpoint = OpenAIEndpoint(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", "")
    assert (await failure(endpoint)).kind is FailureKind.CONNECTIVITY
    assert tried == 1
    await endpoint.aclose()
    server.close()


async def test_a_server_that_does_not_accept_is_a_timeout() -> None:
    # A full backlog leaves further connections unanswered.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.socket() as one,
        socket.socket() as two,
    ):
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        endpoint = OpenAIEndpoint(
            f"http://127.0.0.1:{server.getsockname()[1]}/v1", "", connect_ms=100
        )
        await endpoint.start()
        assert (await failure(endpoint)).kind is FailureKind.TIMEOUT
        await endpoint.aclose()


async def test_a_server_that_falls_silent_is_a_timeout() -> None:
    async with connected(read_timeout_ms=100) as (service, endpoint):
        service.answers = [saying(b"x", pause_s=60)]
        assert (await failure(endpoint)).kind is FailureKind.TIMEOUT


async def test_what_is_no_http_is_broken() -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    endpoint = OpenAIEndpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "")
    assert (await failure(endpoint)).kind is FailureKind.BROKEN
    await endpoint.aclose()
    server.close()


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 405, 500, 501])
async def test_whatever_answers_a_probe_lives(status: int) -> None:
    async with connected() as (service, endpoint):
        service.models = (status, {"Location": "/elsewhere"})
        for _ in range(2):
            await endpoint.probe()
        assert service.warmed_up == 2
        assert service.asked == [], "nothing that costs"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, FailureKind.RATE_LIMIT),
        (502, FailureKind.CONNECTIVITY),
        (503, FailureKind.CONNECTIVITY),
        (504, FailureKind.CONNECTIVITY),
    ],
)
async def test_a_probe_that_nobody_can_serve_now_fails(status: int, kind: FailureKind) -> None:
    async with connected() as (service, endpoint):
        service.models = (status, {"Retry-After": "7"})
        refused = await check_probe_fails(endpoint, kind)
        assert refused.retry_after_s == 7
        assert "secret" not in str(refused)


async def test_a_probe_without_an_answer_fails_in_bounded_time() -> None:
    async with connected(connect_ms=100) as (service, endpoint):
        service.models = None
        await check_probe_fails(endpoint, FailureKind.TIMEOUT, deadline_s=5)
        await endpoint.aclose()
        await check_probe_fails(endpoint, FailureKind.CONNECTIVITY)
    endpoint = OpenAIEndpoint(unused_url(), "")
    await check_probe_fails(endpoint, FailureKind.CONNECTIVITY)
    await endpoint.aclose()


async def test_each_service_is_probed_at_its_endpoint() -> None:
    async with serving() as service:
        for provider in (
            openai.open_chat_model(model="m", base_url=service.base_url),
            openai.open_synthesizer(model="m", base_url=service.base_url),
            openai.open_recognizer(model="m", base_url=service.base_url),
        ):
            service.models = (200, {})
            await provider.probe()
            service.models = (503, {})
            await check_probe_fails(provider, FailureKind.CONNECTIVITY)
            await provider.aclose()
        assert service.warmed_up == 6


async def test_a_closed_endpoint_says_so() -> None:
    async with connected() as (_, endpoint):
        await endpoint.aclose()
        assert (await failure(endpoint)).kind is FailureKind.CONNECTIVITY


async def test_the_key_is_sent_and_none_when_there_is_none() -> None:
    async with connected() as (service, endpoint):
        await ask(endpoint)
        keyless = OpenAIEndpoint(service.base_url, "")
        await ask(keyless)
        await keyless.aclose()
        assert [asked.authorization for asked in service.asked] == ["Bearer secret", None]


async def test_the_end_of_a_body_is_not_waited_for_long() -> None:
    async with connected() as (service, endpoint):
        service.answers = [saying(b"x", pause_s=60)]
        async with endpoint.post(
            "audio/speech", b"{}", {"Content-Type": "application/json"}
        ) as response:
            await reach_end(response.content)


async def test_a_query_of_the_address_stays_behind_the_path_and_headers_are_sent() -> None:
    async with serving() as service:
        base_url = f"{service.base_url.rstrip('/')}?api-version=2024-06-01&x=1"
        endpoint = OpenAIEndpoint(
            base_url, "secret", headers={"api-key": "k", "authorization": "Basic x"}
        )
        await endpoint.probe()
        await ask(endpoint)
        await endpoint.aclose()
        [asked] = service.asked
        assert (asked.path, asked.query) == ("/v1/audio/speech", "api-version=2024-06-01&x=1")
        assert (asked.headers["api-key"], asked.authorization) == ("k", "Basic x")
        assert service.warmed_up == 1


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
async def test_the_proxy_of_the_environment_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    asked: list[str] = []

    async def proxy(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(f"{request.method} {request.url.host}{request.path}")
        return web.Response(body=b"by proxy")

    runner = web.ServerRunner(web.Server(proxy))
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    monkeypatch.setenv(name, f"http://127.0.0.1:{listening.getsockname()[1]}")
    endpoint = OpenAIEndpoint("http://only-the-proxy-knows.invalid/v1", "secret")
    await endpoint.probe()
    assert await ask(endpoint) == b"by proxy"
    assert asked == [
        "GET only-the-proxy-knows.invalid/v1/models",
        "POST only-the-proxy-knows.invalid/v1/audio/speech",
    ]
    await endpoint.aclose()
    await runner.cleanup()
    endpoint = OpenAIEndpoint("http://only-the-proxy-knows.invalid/v1", "secret")
    assert "through the environment's proxy" in str(await failure(endpoint))
    await endpoint.aclose()


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"a": "x\r\ny: z"}, {"a": "秘密"}])
def test_a_header_that_cannot_be_sent_stops_the_start(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="headers") as caught:
        OpenAIEndpoint("http://127.0.0.1/v1", "", headers=headers)
    assert "秘密" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (
            "http://host/v1/chat/completions",
            "'http://host/v1/chat/completions' must end before /chat/completions",
        ),
        ("http://host/v1?x=1#y", "'http://host/v1?x=1#y' has a fragment"),
        ("localhost:1", "'localhost:1' does not begin with http"),
        ("https://", "'https://' names no host"),
        ("http://host:port/v1", "'http://host:port/v1' is no URL"),
    ],
)
def test_an_unusable_address_stops_the_start(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"base_url: {complaint}")):
        OpenAIEndpoint(url, "")


def test_a_key_that_no_header_can_carry_stops_the_start_and_is_not_told() -> None:
    with pytest.raises(ConfigError, match="api_key: ") as caught:
        OpenAIEndpoint("http://127.0.0.1/v1", "sk-秘密\n")
    assert "sk-" not in str(caught.value)
