"""The whole server: warm up, serve, drain, stop."""

import asyncio
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web
from opentelemetry import trace
from threadpoolctl import threadpool_limits

import voicechat
from voicechat.config import Config, build_services, endpoints_of
from voicechat.errors import AdmissionError, ConfigError, Status
from voicechat.processes.forked import ForkServer, can_fork
from voicechat.processes.scheduling import ask_for_short_slices
from voicechat.providers.interfaces import Provider
from voicechat.providers.wrapping import as_provider
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.read_scheduler import ReadScheduler
from voicechat.runtime.services import Services
from voicechat.runtime.tasks import SessionTasks
from voicechat.server import descriptors
from voicechat.server.admission import Admission
from voicechat.server.app import build_app
from voicechat.server.auth import Authoriser, Principal, require_metrics_key
from voicechat.server.cluster import Cluster, SharedHandovers, open_cluster
from voicechat.server.credentials import KEY_FILE, Credentials, credentials
from voicechat.server.devices.memory import DeviceMemory
from voicechat.server.devices.ota import PATH as OTA_PATH
from voicechat.server.devices.ota import OtaEndpoint
from voicechat.server.devices.vision import VisionEndpoint
from voicechat.server.gc_tuning import tune_garbage_collector
from voicechat.server.health import Health, Phase
from voicechat.server.key_watch import watching_keys
from voicechat.server.knowledge import AgentsKnowledge
from voicechat.server.listener import base_url
from voicechat.server.load_shedding import LoadShedder
from voicechat.server.load_signals import load_limits
from voicechat.server.metric_events import MetricEvent
from voicechat.server.metrics import Metrics
from voicechat.server.mount import Mount
from voicechat.server.origins import Origins
from voicechat.server.pages import Pages, demo_folder
from voicechat.server.phone.webhooks import PhoneWebhooks, phone_keys
from voicechat.server.record_keeping import RecordKeeper
from voicechat.server.refusal_speech import RefusalSpeech
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.compat.parts import CompatSettings
from voicechat.server.rest.knowledge.intake import KnowledgeIntake, open_intake
from voicechat.server.rest.media.media import Media
from voicechat.server.rest.routes import rest_operations, rest_routes
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcription_settings import configured, configured_media
from voicechat.server.session_opening import Conditions
from voicechat.server.signals import stop_on_signals
from voicechat.server.tool_servers import ClientToolServers
from voicechat.server.tracing import trace_turn
from voicechat.server.worker_context import WorkerContext, single_process
from voicechat.server.workers.supervisor import ready_line, supervise, workers_of
from voicechat.session.effects import TurnTimed
from voicechat.store.access import ApiEndpoint
from voicechat.store.devices import DeviceStore
from voicechat.store.handovers import Handovers
from voicechat.voice.detector import OnTick, VoiceDetector
from voicechat.voice.silero import find_model
from voicechat.voice.silero_network import open_silero
from voicechat.voice.turn_model import TurnJudge, TurnModel

__all__ = [
    "KEY_FILE",
    "Credentials",
    "Running",
    "credentials",
    "detecting",
    "loop_factory",
    "run",
    "serve_until_signal",
    "serving",
    "tune_threads",
]

_log = logging.getLogger(__name__)

CLOSE_TASKS_S = 1.0

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that takes sessions."""

    url: str
    """``http://host:port``, without a trailing slash."""
    key: str | None
    """The key that the server has made itself; None when keys are configured."""
    has_demo: bool
    app: web.Application
    health: Health
    admission: Admission
    mount: Mount
    backend: Backend
    ports: Mapping[str, int]
    """The ports of endpoints with their own TCP port, by the endpoint's name, and that
    of ``wyoming``.
    """

    async def drain(self, deadline_s: float) -> None:
        """Refuse new sessions and wait for turns in progress, for at most
        ``deadline_s``.

        Cancelling cuts them off.
        """
        self.health.phase = Phase.DRAINING
        await asyncio.gather(self.mount.drain(deadline_s), self.backend.drain(deadline_s))


@asynccontextmanager
async def serving(
    config: Config,
    services: Services,
    admitted: Credentials,
    announce: Announce,
    context: WorkerContext | None = None,
) -> AsyncIterator[Running]:
    """Run a server, or one of its workers in its ``context``, while the context lasts.

    The port is opened first, so that ``/healthz`` answers and ``/readyz`` says
    "starting" while models load; the context is entered when the services are warm.
    Raises ConfigError and what ``Services.start`` raises. Leaving cuts off the
    remaining sessions and stops the services.
    """
    context = context or single_process(config)
    parts = _build_parts(config, services, admitted, context)
    health, mount, backend, detector = context.health, parts.mount, parts.backend, parts.detector
    pages = Pages(demo_folder())
    rest = rest_routes(
        rest_operations(
            backend,
            parts.authorise.issue_token,
            parts.transcriber,
            parts.media,
            config.compat.documents,
            CompatSettings(
                platforms=config.platforms,
                data_dir=config.data_dir,
                origins=parts.authorise.origins,
            ),
            intake=parts.intake,
            records=parts.records,
        )
    )
    routes = [
        *mount.routes(),
        *rest,
        *health.routes(),
        *parts.device_routes,
        *parts.phone.routes(),
        *parts.metrics.routes(parts.may_scrape),
        *pages.routes(),
    ]
    app = build_app(routes, parts.authorise.origins)
    try:
        async with context.listen(app) as port:
            url = base_url(config.server.host, port)
            announce(f"warming up; not ready yet: {url}")
            if parts.decoding is not None:
                await parts.decoding.start()
            await services.start()
            await parts.transcriber.start()
            await parts.records.start()
            if parts.intake is not None:
                await parts.intake.start()
            health.phase = Phase.READY
            with (
                parts.metrics.measuring_loop_lag(),
                parts.metrics.measuring_collector(),
                parts.load_shedder.measuring(),
            ):
                try:
                    async with (
                        nullcontext() if parts.cluster is None else parts.cluster.joined(),
                        watching_keys(parts.authorise, parts.admission),
                        detecting(detector),
                        _preparing_apology(parts.refusal_speech, config, services),
                        mount.listening() as ports,
                        _offering_wyoming(config, services, parts, context) as wyoming,
                        _announced(config, port, wyoming, context),
                    ):
                        yield Running(
                            url=url,
                            key=admitted.shown,
                            has_demo=bool(pages),
                            app=app,
                            health=health,
                            admission=parts.admission,
                            mount=mount,
                            backend=backend,
                            ports=ports if wyoming is None else {**ports, "wyoming": wyoming},
                        )
                finally:
                    await mount.drain(0)
    finally:
        await parts.records.aclose()
        await parts.media.aclose()
        if parts.intake is not None:
            await parts.intake.aclose()
        await parts.transcriber.aclose()
        backend.close()
        if parts.decoding is not None:
            await parts.decoding.aclose()
        await services.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The parts of a server, apart from the services."""

    metrics: Metrics
    cluster: Cluster | None
    authorise: Authoriser
    may_scrape: Callable[[web.Request], None]
    load_shedder: LoadShedder
    detector: VoiceDetector
    decoding: ForkServer | None
    admission: Admission
    mount: Mount
    refusal_speech: RefusalSpeech
    backend: Backend
    transcriber: Transcriber
    media: Media
    intake: KnowledgeIntake | None
    records: RecordKeeper
    device_routes: Sequence[web.RouteDef]
    phone: PhoneWebhooks


def _build_parts(
    config: Config, services: Services, admitted: Credentials, context: WorkerContext
) -> _Parts:
    """Build the parts and connect them. Nothing is started. Raises ConfigError."""
    metrics = Metrics(services, context.shared, context.ledger.worker)
    origins = Origins(config.server.allowed_origins, config.server.trusted_proxies)
    # The key is used only to create tokens, so each process may have its own secret.
    keys = admitted.static_keys | phone_keys(config.phone, secrets.token_urlsafe())
    context.ledger.stop_waiting()
    cluster = open_cluster(config.cluster)
    authorise = Authoriser(admitted.store, keys, origins, context.ledger, cluster)
    handovers = SharedHandovers(Handovers(context.ledger), cluster)

    devices = DeviceStore(config.data_dir, admitted.store)
    vision = VisionEndpoint(devices, config.devices, services)
    admit = _WhenStarted(authorise, context.health)
    reads = ReadScheduler()
    load_shedder = LoadShedder(
        load_limits(config.admission),
        reads,
        sessions=lambda: admission.sessions + backend.requests,
        sessions_by_key=authorise.accounts.in_progress,
        time_encoders=lambda report: mount.time_encoders(report),
        waiting_streams=partial(waiting_streams, tuple(map(as_provider, services.distinct()))),
        on_refused=metrics.count_load_refusal,
    )
    transcription = configured(config)
    backend = Backend(
        services,
        limits=config.limits,
        max_requests=config.server.max_sessions,
        authorise=admit,
        ledger=context.ledger,
        load_shedder=load_shedder,
        agents=config.agents,
        guest_key=config.compat.guest_key,
    )
    detector, decoding = (
        open_detector(config, load_shedder.on_detection_batch),
        open_decoding() if can_fork() else None,
    )
    admission = Admission(config.server.max_sessions, context.ledger, load_shedder)
    refusal_speech = RefusalSpeech(config.apology.spoken)
    transcriber = Transcriber(
        services, transcription, decoding=decoding, account_of=authorise.account_of
    )
    media = Media(backend, transcriber, configured_media(config), origins)
    knowledge = None
    if services.knowledge is not None:
        services.knowledge.on_omission = metrics.count_omission
        knowledge = AgentsKnowledge(
            services.knowledge,
            config.agents,
            public_url=origins.public_url,
            deadline_s=config.knowledge.deadline_ms / 1000,
            may_search=lambda: not reads.late,
            observe=metrics.observe,
        )
    backend.knowledge = knowledge
    records = RecordKeeper(
        config, finishes=context.ledger.worker == 0, on_ended=metrics.count_usage
    )
    mount = Mount(
        endpoints_of(config, vision.tell),
        services,
        admission,
        admit,
        Conditions(
            limits=config.limits,
            observe=_observer(metrics),
            detector=detector,
            reads=reads,
            decoding=decoding,
            apology=config.apology.spoken,
            refusal_speech=refusal_speech,
            interrupt_by_voice=config.hands_free.interrupt_by == "voice",
            hand_over=handovers.add,
            several=context.shared is not None,
            tool_servers=ClientToolServers(transcription.fetch),
            draw=media.draw,
            public_url=origins.public_url,
            knowledge=knowledge,
            records=records,
        ),
        agents=config.agents,
        memory=DeviceMemory(devices, services.models),
        pass_on=context.pass_on,
    )
    load_shedder.on_level = (admission.set_load_level, metrics.set_load_level, context.on_level)
    load_shedder.on_load = metrics.set_load
    metrics.follow_sessions(lambda: admission.all_sessions)
    metrics.follow_workers(context.ledger.processes, lambda: admission.sessions_by_worker)
    return _Parts(
        metrics=metrics,
        cluster=cluster,
        authorise=authorise,
        may_scrape=partial(require_metrics_key, key=config.server.metrics_key, origins=origins),
        load_shedder=load_shedder,
        detector=detector,
        decoding=decoding,
        admission=admission,
        mount=mount,
        refusal_speech=refusal_speech,
        backend=backend,
        transcriber=transcriber,
        media=media,
        records=records,
        intake=open_intake(config, services, transcriber, media.documents),
        device_routes=(*OtaEndpoint(devices, config.devices, origins).routes(), *vision.routes()),
        phone=PhoneWebhooks(
            config.phone,
            admit,
            authorise.issue_token,
            admission,
            handovers.take,
            origins=origins,
            agents=config.agents,
            apology=config.apology.spoken,
        ),
    )


@asynccontextmanager
async def _offering_wyoming(
    config: Config, services: Services, parts: _Parts, context: WorkerContext
) -> AsyncIterator[int | None]:
    """Serve Home Assistant while the context lasts, if configured; yields the port.

    Raises ConfigError naming the key.
    """
    if config.wyoming.port is None:
        yield None
        return
    try:
        from voicechat.server.wyoming import WyomingPort
    except ImportError as error:
        raise ConfigError("wyoming.port: needs pip install 'voicechat[wyoming]'") from error
    port = WyomingPort(
        config.wyoming,
        services,
        parts.admission,
        config.limits,
        several=context.shared is not None,
    )
    async with port.listening() as number:
        yield number


@asynccontextmanager
async def _announced(
    config: Config, port: int, wyoming: int | None, context: WorkerContext
) -> AsyncIterator[None]:
    """Announce the server on the local network while the context lasts. Only one
    process of a server does so.
    """
    if not config.server.announce or context.ledger.worker != 0:
        yield
        return
    try:
        from voicechat.server import announcing
    except ImportError:  # the extra is not installed
        yield
        return
    properties = {"path": OTA_PATH}
    if config.devices.public_url:
        properties["url"] = config.devices.public_url
    services = announcing.reachable(
        [
            announcing.Announced(
                kind=announcing.OTA, host=config.server.host, port=port, properties=properties
            ),
            *(
                [announcing.Announced(kind=announcing.WYOMING, host=config.wyoming.host, port=at)]
                if (at := wyoming) is not None
                else []
            ),
        ]
    )
    async with announcing.announcing(services) if services else nullcontext():
        yield


@asynccontextmanager
async def _preparing_apology(
    speech: RefusalSpeech, config: Config, services: Services
) -> AsyncIterator[None]:
    """Prepare the apology for refused telephone callers. With the embedded voice this
    happens before the context begins; without it the default synthesiser prepares it in
    the background.
    """
    tasks = SessionTasks(on_fault=lambda: _log.error("refused callers hear no apology"))
    if any(service.provider == "espeak" for service in config.tts.values()):
        from voicechat.providers.espeak import open_synthesizer  # GPL-3: optional

        async with aclosing(open_synthesizer()) as synthesizer:
            await speech.prepare(synthesizer)
    else:
        _ = tasks.spawn(speech.prepare(services.synthesizers["default"]), "apology")
    try:
        yield
    finally:
        await tasks.close(CLOSE_TASKS_S)


class _WhenStarted:
    """Refuses everybody while the services warm up."""

    def __init__(self, authorise: Authoriser, health: Health) -> None:
        self._authorise = authorise
        self._health = health

    async def __call__(
        self, request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
    ) -> Principal:
        """Authorise a request, once the server has started."""
        self._check()
        return await self._authorise(request, endpoint, keys)

    async def admit_key(self, key: str, address: str, endpoint: ApiEndpoint) -> Principal:
        """Authorise a key, once the server has started."""
        self._check()
        return await self._authorise.admit_key(key, address, endpoint)

    def _check(self) -> None:
        if self._health.phase is Phase.STARTING:
            raise AdmissionError(Status.AT_CAPACITY, "the server is starting")


def _observer(metrics: Metrics) -> Callable[[MetricEvent], None]:
    tracer = trace.get_tracer("voicechat", voicechat.__version__)

    def observe(fact: MetricEvent) -> None:
        metrics.observe(fact)
        if isinstance(fact, TurnTimed):
            trace_turn(tracer, fact.breakdown)

    return observe


def open_detector(config: Config, on_tick: OnTick | None = None) -> VoiceDetector:
    """Open the voice detection with the configured models.

    Raises ConfigError naming the key of a model that cannot be used.
    """
    voice, turn = config.hands_free.voice_model, config.hands_free.turn_model
    with _naming("voice_model"):
        model = open_silero(find_model(Path(voice) if voice else None))
    with _naming("turn_model"):
        turn_judge = TurnJudge(TurnModel(Path(turn))) if turn else None
    background_db = config.hands_free.background_db
    return VoiceDetector(model, on_tick, turn_judge=turn_judge, background_db=background_db)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Prefix a ConfigError in the context with the key of ``[hands_free]`` that it is
    about.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"hands_free.{key}: {error}") from error


@asynccontextmanager
async def detecting(detector: VoiceDetector) -> AsyncIterator[None]:
    """Run the voice detection while the context lasts."""
    tasks = SessionTasks(
        on_fault=lambda: _log.error("voice detection failed: hands-free sessions hear nothing")
    )
    _ = tasks.spawn(detector.run(), "voice-detection")
    try:
        yield
    finally:
        await tasks.close(CLOSE_TASKS_S)


def tune_threads() -> None:
    """Call on the event loop's thread. Makes computing threads yield the interpreter
    to it sooner, gives it a core sooner, and disables numpy's thread pool.

    Measured with 300 sessions speaking at once: with Python's switch interval of 5 ms
    voice detection in a thread fell seconds behind. The matrices of the voice model are
    small: more BLAS threads would spin on other cores and gain nothing.
    """
    sys.setswitchinterval(0.0005)
    ask_for_short_slices()
    threadpool_limits(limits=1, user_api="blas")


def waiting_streams(providers: Sequence[Provider]) -> int:
    """Return how many streams wait for a slot of one of the providers."""
    return sum([provider.waiting_streams for provider in providers])


def run(config: Config, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, with workers if configured.

    Raises ConfigError and ProviderError.
    """
    descriptors.raise_limit()
    workers = workers_of(config)
    if config.server.max_sessions > descriptors.for_clients() * workers:
        _log.warning(
            "server.max_sessions: %d is more than the %d connections that the limit of "
            "descriptors allows (ulimit -n)",
            config.server.max_sessions,
            descriptors.for_clients() * workers,
        )
    if workers > 1:
        asyncio.run(supervise(config, workers, announce))
        return
    services = build_services(config)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve_until_signal(config, services, announce))


async def serve_until_signal(config: Config, services: Services, announce: Announce) -> None:
    """Serve until a signal, then drain.

    A second signal, or one during the warm-up, stops at once.
    """
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    with stop_on_signals() as stop:
        async with serving(config, services, credentials(config), announce) as server:
            tune_garbage_collector()
            tune_threads()
            announce(
                ready_line(
                    server.url, server.key, loop.time() - started_s, has_demo=server.has_demo
                )
            )
            stop.may_drain = True
            await stop.requested.wait()
            announce(
                f"draining: turns in progress have {config.server.drain_s:g} s to end; once more "
                "to stop at once"
            )
            await server.drain(config.server.drain_s)
    announce("stopped")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop factory, or None without uvloop."""
    try:
        import uvloop
    except ImportError:  # not available on Windows
        return None
    return uvloop.new_event_loop
