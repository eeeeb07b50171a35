"""The whole server: warm up, serve, drain, stop."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from opentelemetry import trace

import voicechat
from voicechat.config import Config, build_services
from voicechat.errors import AdmissionError, ConfigError, Status
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.services import Services
from voicechat.runtime.tasks import SessionTasks
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.app import build_app
from voicechat.server.auth import Authoriser, Principal
from voicechat.server.health import Health, Phase
from voicechat.server.key_watch import watching_keys
from voicechat.server.listener import base_url, is_loopback, listening
from voicechat.server.metrics import Metrics
from voicechat.server.pages import Pages, demo_folder
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.routes import rest_operations, rest_routes
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcription_settings import configured
from voicechat.server.signals import stop_on_signals
from voicechat.server.sockets import SocketHub
from voicechat.server.tracing import trace_turn
from voicechat.session.effects import Fact, TurnTimed
from voicechat.store.access import Endpoint
from voicechat.store.keys import KeyStore
from voicechat.store.local_key import local_key
from voicechat.voice.detector import VoiceDetector
from voicechat.voice.silero import SileroModel, find_model
from voicechat.voice.turn_model import TurnJudge, TurnModel

_log = logging.getLogger(__name__)

CLOSE_DETECTION_S = 1.0
KEY_FILE = "keys.sqlite3"
LOCAL_KEY_ID = "local"
ENVIRONMENT_KEY_ID = "environment"

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom a server lets in. ``shown`` is the key that the printed address may carry; None: no key is known."""

    store: KeyStore
    static_keys: dict[str, str]
    shown: str | None


def credentials(config: Config) -> Credentials:
    """Gather the configured keys; on loopback without any, make one. ConfigError: beyond loopback without any."""
    store = KeyStore(config.data_dir / KEY_FILE)
    if config.api_key:
        return Credentials(store, {ENVIRONMENT_KEY_ID: config.api_key}, None)
    if store.has_valid_keys(unix_s()):
        return Credentials(store, {}, None)
    if not is_loopback(config.server.host):
        raise ConfigError(
            f"server.host: {config.server.host} can be reached from other machines, but there is no key: "
            "make one with 'voicechat keys create', or set VOICECHAT_API_KEY, or listen on 127.0.0.1"
        )
    key = local_key(config.data_dir)
    return Credentials(store, {LOCAL_KEY_ID: key}, key)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that takes sessions."""

    url: str
    """``http://host:port``, without a slash at the end."""
    key: str | None
    """A key that is let in, when the server made one itself."""
    has_demo: bool
    app: web.Application
    health: Health
    hub: SocketHub
    backend: Backend

    async def drain(self, deadline_s: float) -> None:
        """Take no more sessions; let turns in progress end, for at most ``deadline_s``. Cancelling it cuts them."""
        self.health.phase = Phase.DRAINING
        await asyncio.gather(self.hub.drain(deadline_s), self.backend.drain(deadline_s))


@asynccontextmanager
async def serving(
    config: Config, services: Services, admitted: Credentials, announce: Announce
) -> AsyncIterator[Running]:
    """Run a server while the context lasts. It is entered when the services are warm.

    The port is opened first, so that ``/healthz`` answers and ``/readyz`` says "starting" while models load. Raises
    ConfigError and what ``Services.start`` raises. Leaving cuts the sessions that are left and stops the services.
    """
    health, metrics, pages = Health(), Metrics(services), Pages(demo_folder())
    authorise = Authoriser(admitted.store, admitted.static_keys, config.server.allowed_origins)

    tracer = trace.get_tracer("voicechat", voicechat.__version__)

    def observe(fact: Fact) -> None:
        metrics.observe(fact)
        if isinstance(fact, TurnTimed):
            trace_turn(tracer, fact.waterfall)

    async def admit(request: web.Request, endpoint: Endpoint) -> Principal:
        if health.phase is Phase.STARTING:
            raise AdmissionError(Status.AT_CAPACITY, "the server is starting")
        return await authorise(request, endpoint)

    detector = VoiceDetector(SileroModel(find_model()), turn_judge=open_turn_judge(config))
    decoding = open_decoding()
    hub = SocketHub(
        services,
        limits=config.limits,
        max_sessions=config.server.max_sessions,
        compat=config.compat,
        authorise=admit,
        observe=observe,
        detector=detector,
        decoding=decoding,
    )
    hub.apology = config.apology.spoken
    metrics.follow_sessions(lambda: hub.sessions)
    backend = Backend(services, limits=config.limits, max_requests=config.server.max_sessions, authorise=admit)
    transcriber = Transcriber(services, configured(config), decoding=decoding, account_of=authorise.account_of)
    rest = rest_routes(rest_operations(backend, authorise.issue_token, transcriber))
    app = build_app([*hub.routes(), *rest, *health.routes(), *metrics.routes(), *pages.routes()])
    try:
        async with listening(app, config.server.host, config.server.port) as port:
            url = base_url(config.server.host, port)
            announce(f"warming up; not ready yet: {url}")
            await decoding.start()
            await services.start()
            await transcriber.start()
            health.phase = Phase.READY
            with metrics.measuring_loop_lag(), metrics.measuring_collector():
                try:
                    async with watching_keys(authorise, hub), detecting(detector):
                        yield Running(url, admitted.shown, bool(pages), app, health, hub, backend)
                finally:
                    await hub.drain(0)
    finally:
        await transcriber.aclose()
        backend.close()
        await decoding.aclose()
        await services.aclose()


def open_turn_judge(config: Config) -> TurnJudge | None:
    """The configured model that hears whether a turn is finished. Raises ConfigError naming the key."""
    path = config.hands_free.turn_model
    if not path:
        return None
    try:
        return TurnJudge(TurnModel(Path(path)))
    except ConfigError as error:
        raise ConfigError(f"hands_free.turn_model: {error}") from error


@asynccontextmanager
async def detecting(detector: VoiceDetector) -> AsyncIterator[None]:
    """Detect voice while the context lasts."""
    tasks = SessionTasks(on_fault=lambda: _log.error("voice detection failed: hands-free sessions hear nothing"))
    _ = tasks.spawn(detector.run(), "voice-detection")
    try:
        yield
    finally:
        await tasks.close(CLOSE_DETECTION_S)


def tune_garbage_collector() -> None:
    """Take what the start has made out of the collector's sight, and let it look less often.

    A full collection stops every session at once. Measured on a comparable engine with 50 sessions: p99 of the added
    latency 890 ms with the defaults, 168 ms so.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


def tune_threads() -> None:
    """Let the event loop have the interpreter back sooner from threads that compute.

    Measured with 300 sessions speaking at once: with Python's 5 ms voice detection fell seconds behind.
    """
    sys.setswitchinterval(0.0005)


def run(config: Config, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, on uvloop where there is one. Raises ConfigError and ProviderError."""
    services = build_services(config)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve_until_signal(config, services, announce))


async def serve_until_signal(config: Config, services: Services, announce: Announce) -> None:
    """Serve until a signal, then drain. A second signal, or one during the warm-up, stops at once."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    with stop_on_signals() as stop:
        async with serving(config, services, credentials(config), announce) as server:
            tune_garbage_collector()
            tune_threads()
            announce(_ready_line(config, server, loop.time() - started_s))
            stop.may_drain = True
            await stop.requested.wait()
            announce(f"draining: turns in progress have {config.server.drain_s:g} s to end; once more to stop at once")
            await server.drain(config.server.drain_s)
    announce("stopped")


def _ready_line(config: Config, server: Running, warm_up_s: float) -> str:
    address = f"{server.url}/#key={server.key}" if server.key else f"{server.url}/"
    what = "open" if server.has_demo else "listening on"
    return f"ready after {warm_up_s:.1f} s; {what} {address}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # There is none for Windows.
        return None
    return uvloop.new_event_loop
