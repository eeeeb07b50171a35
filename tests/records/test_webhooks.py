"""Messages about sessions: signed, stored until they are taken, never sent where they
must not go.
"""

import asyncio
import base64
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.records.test_served import found, hold, key_of
from tests.rest.live import serving_live
from voicechat.config.record_sections import WebhooksConfig
from voicechat.errors import ConfigError
from voicechat.records.database import SqliteRecordDatabase
from voicechat.records.deliveries import LEASE_MS, Delivery, DeliveryQueue, MessageWriter
from voicechat.records.usage import Prices, SessionOfKey, Used
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.webhooks import WebhookSender, read_secret, signature
from voicechat.store.access import ApiEndpoint

T = TypeVar("T")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SESSION = SessionOfKey(session="s1", began_ms=5, project="p", key_id="k", agent="anna")


def test_a_signature_is_that_of_the_standards_example() -> None:
    """The example of the Standard Webhooks libraries."""
    made = signature(
        read_secret(SECRET),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_weak_secret_stops_the_start(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"webhooks\.secret"):
        read_secret(secret)


def test_messages_are_stored_once_and_come_until_they_are_removed(tmp_path: Path) -> None:
    database = SqliteRecordDatabase(tmp_path / "index.sqlite")
    database.open()
    queue, writer = DeliveryQueue(database), MessageWriter()
    started = writer.started(SESSION, recorded=True)
    queue.put("s1", started, 0)
    queue.put("s1", started, 0)
    (first,) = queue.take(0, 10)
    assert json.loads(first.body) == started
    assert queue.take(0, 10) == [], "it is being sent"
    # The process that was sending it has died.
    (again,) = DeliveryQueue(database).take(LEASE_MS, 10)
    assert (again.id, again.attempts) == (first.id, 2)
    queue.retry_later(again, LEASE_MS)
    assert queue.take(LEASE_MS + 59_999, 10) == []
    (third,) = queue.take(LEASE_MS + 60_000, 10)
    queue.remove(third)
    assert queue.take(10**12, 10) == []
    database.close()


def test_the_message_about_the_end_holds_numbers_and_links() -> None:
    writer = MessageWriter(public_url="https://v.example/", prices=Prices(heard_minute=2.0))
    body = writer.ended(SESSION, Used(heard_ms=30_000), None)
    assert body["type"] == "session.ended"
    assert body["data"]["usage"]["cost"] == 1.0
    assert "links" not in body["data"], "it was not recorded"
    links = writer.started(SESSION, recorded=True)["data"]["links"]
    assert links["audio"] == "https://v.example/v1/records/s1/audio"


@pytest.mark.parametrize("url", ["ftp://a.example/", "https://user:word@a.example/"])
def test_an_address_that_cannot_be_used_stops_the_start(tmp_path: Path, url: str) -> None:
    queue = DeliveryQueue(SqliteRecordDatabase(tmp_path / "index.sqlite"))
    config = WebhooksConfig.model_construct(
        url=url, secret=SECRET, allowed_networks=(), give_up_hours=1.0
    )
    with pytest.raises(ConfigError, match=r"webhooks\.url"):
        WebhookSender(config, queue)


@pytest.mark.long
@pytest.mark.real_time
async def test_an_address_in_a_private_network_gets_nothing(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def receive(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    database = SqliteRecordDatabase(tmp_path / "index.sqlite")
    database.open()
    queue, failed = DeliveryQueue(database), asyncio.Event()
    started = MessageWriter().started(SESSION, recorded=False)
    queue.put("s1", started, int(unix_s() * 1000))

    async def call(work: Callable[[], T]) -> T:
        return work()

    def retry_later(delivery: Delivery, now_ms: int) -> None:
        failed.set()

    queue.retry_later = retry_later  # type: ignore[method-assign]
    app = web.Application()
    app.router.add_post("/hook", receive)
    async with TestServer(app) as receiver:
        url = str(receiver.make_url("/hook"))
        sender = WebhookSender(WebhooksConfig(url=url, secret=SECRET), queue)
        sending = asyncio.create_task(sender.run(call))
        async with asyncio.timeout(60):
            await failed.wait()
        sending.cancel()
        await asyncio.wait([sending])
    assert received == []
    database.close()


@pytest.mark.long
@pytest.mark.real_time
async def test_each_session_is_told_at_its_start_and_its_end(tmp_path: Path) -> None:
    received: list[tuple[str, bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        headers = request.headers
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        secret = base64.b64decode(SECRET.removeprefix("whsec_"))
        digest = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        received.append((headers["webhook-id"], body))
        return web.Response(status=500 if len(received) == 1 else 204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with TestServer(app) as receiver:
        config = (
            "[admission]\nunquestioned_sessions = 1000000\n"
            '[agents.read]\nrecord = "text"\n[agents.silent]\ninstructions = "x"\n'
            f'[webhooks]\nurl = "{receiver.make_url("/hook")}"\nsecret = "{SECRET}"\n'
            'allowed_networks = ["127.0.0.0/8"]\n'
        )
        async with serving_live(tmp_path, config=config) as live:
            talker, reader = key_of(live, "one"), key_of(live, "one", ApiEndpoint.RECORDS)
            for agent in ("read", "silent"):
                await hold(live, agent, talker, "one")
            (item,) = await found(live, reader)
            await live.until(lambda: len(dict(received)) == 4 and len(received) == 5)
    assert len(received) == 5, "the first one came twice"
    bodies = {name: json.loads(body) for name, body in received}
    assert received[0][0] in [name for name, _ in received[1:]]
    of_record = [each for each in bodies.values() if each["data"]["session"] == item["id"]]
    assert sorted(each["type"] for each in of_record) == ["session.ended", "session.started"]
    (ended,) = [each["data"] for each in of_record if each["type"] == "session.ended"]
    assert ended["summary"]["turns"] == 1
    assert ended["usage"]["characters"] > 0
    assert ended["links"]["record"].endswith(item["id"])
    for body in bodies.values():
        assert talker not in json.dumps(body)
