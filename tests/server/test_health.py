import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from voicechat.server.app import build_app
from voicechat.server.health import Health, Phase


@pytest.mark.real_time
async def test_readiness_follows_the_phase_and_liveness_does_not() -> None:
    health = Health()
    seen = []
    async with (
        TestServer(build_app(health.routes()), host="127.0.0.1") as server,
        ClientSession() as session,
    ):
        for phase in Phase:
            health.phase = phase
            async with session.get(server.make_url("/healthz")) as live:
                assert (live.status, await live.json()) == (200, {"status": "ok"})
            async with session.get(server.make_url("/readyz")) as ready:
                seen.append((ready.status, (await ready.json())["status"]))
    assert seen == [(503, "starting"), (200, "ready"), (503, "draining")]
