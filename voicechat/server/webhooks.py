"""Sends webhook messages, signed as Standard Webhooks says
(https://www.standardwebhooks.com).

A message is sent until the receiver answers with 2xx, also after a restart. It may
arrive twice, with the same ``webhook-id``.
"""

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar
from yarl import URL

from voicechat.config.record_sections import WebhooksConfig
from voicechat.errors import AdmissionError, ConfigError
from voicechat.records.deliveries import Delivery, DeliveryQueue
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.fetch import CONNECT_S, AddressGuard, FetchPolicy, NameResolver, check_address

SECRET_PREFIX = "whsec_"
LEAST_SECRET_BYTES = 24
LOOK_S = 1.0
AT_ONCE = 8
ATTEMPT_S = 15.0
_GONE = 410

T = TypeVar("T")
_log = logging.getLogger(__name__)


class CallQueue(Protocol):
    """Runs work on the queue in a thread."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Return the result. Raises ``AdmissionError`` while the database does not
        answer.
        """


class WebhookSender:
    """Sends the messages of the queue to one address."""

    def __init__(self, config: WebhooksConfig, queue: DeliveryQueue) -> None:
        """Raises ConfigError if the address or the secret cannot be used."""
        self._url = URL(config.url)
        port = self._url.port
        self._policy = FetchPolicy(
            allowed_networks=config.allowed_networks, ports=frozenset({port} if port else ())
        )
        try:
            check_address(self._url, self._policy)
        except ValueError as error:
            raise ConfigError(f"webhooks.url: {error}") from None
        self._secret = read_secret(config.secret)
        self._queue = queue
        self._give_up_ms = round(config.give_up_hours * 3_600_000)
        self._names = NameResolver()

    async def run(self, call: CallQueue) -> None:
        """Send until cancelled."""
        timeout = ClientTimeout(total=ATTEMPT_S, sock_connect=CONNECT_S)
        connector = AddressGuard(self._policy).connector(
            self._names.resolver_for("webhooks"), limit=AT_ONCE
        )
        async with ClientSession(
            connector=connector, timeout=timeout, cookie_jar=DummyCookieJar(), trust_env=False
        ) as session:
            while True:
                due: list[Delivery] = []
                try:
                    due = await call(lambda: self._queue.take(_now_ms(), AT_ONCE))
                    async with asyncio.TaskGroup() as group:
                        for delivery in due:
                            group.create_task(self._deliver(session, delivery, call))
                except* AdmissionError:
                    due = []  # logged by ``call``; the messages come again
                await asyncio.sleep(0 if due else LOOK_S)

    async def _deliver(
        self,
        session: ClientSession,
        delivery: Delivery,
        call: CallQueue,
    ) -> None:
        status = await self._send(session, delivery)
        if status is not None and 200 <= status < 300:
            await call(lambda: self._queue.remove(delivery))
        elif status == _GONE or _now_ms() - delivery.created_ms > self._give_up_ms:
            _log.error("webhook message %s is given up (status %s)", delivery.id, status)
            await call(lambda: self._queue.remove(delivery))
        else:
            _log.warning(
                "webhook message %s was not taken at attempt %d (status %s)",
                delivery.id,
                delivery.attempts,
                status,
            )
            await call(lambda: self._queue.retry_later(delivery, _now_ms()))

    async def _send(self, session: ClientSession, delivery: Delivery) -> int | None:
        """Return the status of the answer; None: there was none."""
        stamp = str(int(unix_s()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(self._secret, delivery.id, stamp, delivery.body),
        }
        try:
            async with session.post(
                self._url, data=delivery.body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except (ClientError, OSError, TimeoutError):
            return None


def read_secret(text: str) -> bytes:
    """Return the bytes of a secret, ``whsec_`` and base64. Raises ConfigError."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) < LEAST_SECRET_BYTES:
        raise ConfigError(
            f"webhooks.secret: {SECRET_PREFIX} and at least {LEAST_SECRET_BYTES} bytes in "
            "base64, as openssl rand -base64 32 prints"
        )
    return secret


def signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the header ``webhook-signature``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(secret, signed, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def _now_ms() -> int:
    return int(unix_s() * 1000)
