"""The schema of the configuration: sections, keys, defaults and bounds. It generates
``docs/configuration.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    create_model,
)

from voicechat.agents import Agents
from voicechat.config.agent_sections import AgentConfig
from voicechat.config.local_models import LocalModels
from voicechat.config.media import MediaServiceConfig
from voicechat.config.record_sections import (
    PricesConfig,
    RecordsConfig,
    WebhooksConfig,
    postgres_url,
)
from voicechat.config.section import ConfigSection, Network, as_tuple, network
from voicechat.config.server_sections import (
    AdmissionConfig,
    ClusterConfig,
    CompatConfig,
    DevicesConfig,
    PhoneConfig,
    PlatformConfig,
    ResumptionConfig,
    ServerConfig,
    WyomingConfig,
)
from voicechat.config.tool_sections import ToolConfig
from voicechat.providers.registry import MediaKind
from voicechat.runtime.fallback.policy import ServicePolicy
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.limits import SessionLimits
from voicechat.store.package_registries import RegistrySettings
from voicechat.text.language import LANGUAGES

_POLICY = ServicePolicy()
_APOLOGY = FallbackMessage()
_GIB = 1024**3

ServiceKind: TypeAlias = Literal["asr", "llm", "tts"]


class HandsFreeConfig(ConfigSection):
    """``[hands_free]``: how the server finds the end of a turn by itself."""

    voice_model: str = ""
    """A Silero voice model (an ONNX file, version 5 or later), which tells speech from
    other sounds. Empty: the one in the installed package.
    """
    turn_model: str = ""
    """A Smart Turn model (an ONNX file, version 3), which judges by the sound whether a
    turn is finished. Empty: only the words are judged.
    """
    interrupt_by: Literal["words", "voice"] = "words"
    """What interrupts a reply if the client requires no words
    (``min_interruption_words`` 0). ``words``: words other than "mm-hm" and the like, or
    a second of speech without a recognised word; after a cough the reply continues.
    ``voice``: any sound of ``min_interruption_ms``, at once.
    """
    background_db: Annotated[float, Field(ge=0, le=60)] = 12.0
    """A voice that is this many dB fainter than the user's is in the background, such
    as a television; it neither interrupts nor keeps a turn open. A user who moves away
    from the microphone is heard again after 12 s of speech. 0: every voice counts, for
    several people around one microphone.
    """


class RepliesConfig(ConfigSection):
    """``[replies]``: which part of a chat model's text is the reply."""

    hidden_tags: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\W\d][\w.\-]{0,47}$")], ...],
        BeforeValidator(as_tuple),
    ] = ()
    """Names of further tags whose content is neither shown, spoken nor remembered."""


class ApologyConfig(ConfigSection):
    """``[apology]``: what is said when no chat model answers. An empty text is not
    said.
    """

    enabled: bool = True
    """False: nothing is said."""
    zh: Annotated[str, Field(max_length=200)] = _APOLOGY.zh
    """For a user who spoke Chinese."""
    en: Annotated[str, Field(max_length=200)] = _APOLOGY.en
    """For any other user."""

    @property
    def spoken(self) -> FallbackMessage | None:
        """The session's form of this section; None when disabled."""
        return FallbackMessage(zh=self.zh, en=self.en) if self.enabled else None


class TranscriptionConfig(ConfigSection):
    """``[transcription]``: transcription tasks and their recordings."""

    folder: str = ""
    """The folder of the recordings, and of the tasks unless ``database_url`` is set.
    Empty: ``tasks`` in the data directory.
    """
    database_url: Annotated[str, AfterValidator(postgres_url), Field(repr=False)] = ""
    """``postgresql://...``, for several machines, which must then share ``folder`` too.
    Empty: SQLite.
    """
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """How many tasks this server performs at once; each of its processes performs at
    least one.
    """
    requests: Annotated[int, Field(ge=1, le=4096)] | None = None
    """How many recordings, of clients that wait for the result, this server recognises
    at once; further ones queue. Unset: twice the number of cores.
    """
    max_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    """Attempts that may die with their process before a task fails."""
    keep_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """How long a finished task and its recording are kept."""
    max_recording_bytes: Annotated[int, Field(ge=1)] = _GIB
    """The largest recording."""
    max_key_bytes: Annotated[int, Field(ge=1)] = 20 * _GIB
    """The most that the recordings of one key may occupy on disk."""
    max_key_tasks: Annotated[int, Field(ge=1)] = 10_000
    """The most tasks of one key, including finished ones that are kept."""
    max_disk_bytes: Annotated[int, Field(ge=1)] = 100 * _GIB
    """The most that all recordings may occupy on disk."""
    max_task_minutes: Annotated[int, Field(ge=1, le=1440)] = 300
    """The longest recording of a task."""
    max_request_minutes: Annotated[int, Field(ge=1, le=1440)] = 30
    """The longest recording of a client that waits for the result."""
    allowed_networks: Annotated[
        tuple[Annotated[Network, BeforeValidator(network)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Non-public networks that ``audio_url`` and the addresses of clients' MCP servers
    may lead to.
    """
    allowed_ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...],
        Field(min_length=1),
        BeforeValidator(as_tuple),
    ] = (80, 443)
    """The ports that these addresses may name."""


class MediaConfig(ConfigSection):
    """``[media]``: pictures and videos of clients, and those made for them. The tasks
    are stored as ``[transcription]`` configures.
    """

    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#\s]+)?$")] = ""
    """The address at which clients reach this server, such as `https://voice.example`;
    the addresses of results begin with it. Empty: the address of the request.
    """
    keep_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """How long a result can be downloaded."""
    max_key_bytes: Annotated[int, Field(ge=1)] = 5 * _GIB
    """The most that the files of one key may occupy on disk."""
    max_disk_bytes: Annotated[int, Field(ge=1)] = 50 * _GIB
    """The most that all files may occupy on disk."""
    image_deadline_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """How long a picture may take."""


class KnowledgeConfig(ConfigSection):
    """``[knowledge]``: documents and answered questions from which agents answer."""

    enabled: bool | None = None
    """True: the dictionaries (35 MB, 0.2 s) and the embedder are loaded at the start.
    Unset: at the start if something has been stored or a section ``[knowledge]`` or an
    agent's ``knowledge`` is configured, else at the first upload. False: there is no
    knowledge.
    """
    folder: str = ""
    """For the uploaded files, and for what is found in them unless there is a
    ``database_url``. Empty: ``knowledge`` in the data directory.
    """
    database_url: Annotated[str, AfterValidator(postgres_url), Field(repr=False)] = ""
    """``postgresql://...`` with pgvector for several machines, which then share
    ``folder`` too; empty: SQLite.
    """
    embedder: str = "default"
    """The service ``[embedders.NAME]`` for the search by meaning. Empty, or while there
    is none: only words are searched.
    """
    vector_cache_mib: Annotated[int, Field(ge=1, le=1_048_576)] = 512
    """Memory for vectors, with SQLite, in the one process that searches for all
    workers. 20,000 passages, each of four windows with 384 numbers, take 120.
    """
    deadline_ms: Annotated[int, Field(ge=0, le=60_000)] = 150
    """How long an answer waits for a search after the end of the user's turn. The
    search has begun earlier, while the user spoke.
    """


class LanguageVoiceConfig(ConfigSection):
    """A voice of ``[tts.NAME.by_language]``; a string names a voice of this service."""

    service: str = ""
    """The name of a ``[tts.*]`` service. Empty: this one."""
    voice: str = ""
    """One of its voices; empty: its default."""


def _language_voice(value: object) -> object:
    return {"voice": value} if isinstance(value, str) else value


_LanguageVoice = Annotated[LanguageVoiceConfig, BeforeValidator(_language_voice)]


class LanguageVoicesConfig(ConfigSection):
    """``[tts.NAME.by_language]``: the voice that speaks the sentences of a language,
    unless the client chooses one. A string names a voice of this service;
    ``{ service = "NAME", voice = "NAME" }`` a voice of another.
    """

    zh: _LanguageVoice | None = None
    """Sentences with Chinese characters, whatever else is in them."""
    ja: _LanguageVoice | None = None
    """Sentences with kana."""
    ko: _LanguageVoice | None = None
    """Sentences with Hangul."""
    en: _LanguageVoice | None = None
    """Sentences in Latin letters, whatever language these write."""

    @property
    def chosen(self) -> dict[str, LanguageVoiceConfig]:
        """The voices that are given, by language."""
        given = {language: getattr(self, language) for language in LANGUAGES}
        return {language: voice for language, voice in given.items() if voice is not None}


class ServiceConfig(BaseModel):
    """``[llm.NAME]``, ``[asr.NAME]`` or ``[tts.NAME]``: a provider. The other keys are
    its keyword arguments.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", hide_input_in_errors=True)

    provider: Annotated[str, Field(min_length=1)]
    """The name of a provider, or ``package.module:factory`` for your own."""
    fallback: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    """Names of fallback services of the same kind, tried in order when this one
    fails.
    """
    also: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_tuple)] = ()
    """Other names that clients may use for this service: the names that stock clients
    have compiled in. `*`: any name that no other service has.
    """
    by_language: LanguageVoicesConfig = LanguageVoicesConfig()
    """``tts`` only: voices for the languages that this service's voice does not
    speak.
    """
    max_streams: Annotated[int, Field(ge=1)] | None = None
    queue_s: Annotated[float, Field(ge=0, le=600)] = _POLICY.queue_s
    attempt_s: Annotated[float, Field(gt=0, le=600)] | None = None
    first_use_s: Annotated[float, Field(ge=0, le=3600)] = _POLICY.first_use_s
    breaker_failures: Annotated[int, Field(ge=1)] = _POLICY.breaker_failures
    breaker_ratio: Annotated[float, Field(gt=0, le=1)] = _POLICY.breaker_ratio
    breaker_pause_s: Annotated[float, Field(gt=0, le=3600)] = _POLICY.breaker_pause_s
    breaker_max_pause_s: Annotated[float, Field(gt=0, le=86_400)] = _POLICY.breaker_max_pause_s
    _written: dict[tuple[str, ...], str] = PrivateAttr(default_factory=dict)

    def __repr__(self) -> str:
        """Without the keyword arguments: one of them may be a secret."""
        return f"ServiceConfig(provider={self.provider!r})"

    @property
    def written(self) -> dict[tuple[str, ...], str]:
        """Raw text of the keyword arguments, and of keys of tables among them, that
        came from variables and are not strings in TOML; by path.
        """
        return self._written

    @property
    def arguments(self) -> dict[str, object]:
        """The provider's keyword arguments."""
        return dict(self.model_extra or {})

    @property
    def policy(self) -> ServicePolicy:
        """The failure policy; see ``ServicePolicy``."""
        return ServicePolicy(
            **{limit.name: getattr(self, limit.name) for limit in fields(ServicePolicy)}
        )


_FROM_ZERO = frozenset({"early_replies_wasted"})
"""Limits that may be 0."""
# Generated from the dataclass, so that no limit can be missing.
_LIMIT_FIELDS: Any = {
    limit.name: (Annotated[int, Field(ge=0 if limit.name in _FROM_ZERO else 1)], limit.default)
    for limit in fields(SessionLimits)
}
LimitsSection = create_model("LimitsSection", __base__=ConfigSection, **_LIMIT_FIELDS)


class DialectConfig(BaseModel):
    """``[dialects.NAME]``: a protocol of your own. The other keys are the keyword
    arguments of its factory.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", hide_input_in_errors=True)

    dialect: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """``package.module:factory``, which returns a
    ``voicechat.dialects.base.Endpoint``.
    """

    def __repr__(self) -> str:
        """Without the keyword arguments: one of them may be a secret."""
        return f"DialectConfig(dialect={self.dialect!r})"

    @property
    def arguments(self) -> dict[str, object]:
        """The factory's keyword arguments."""
        return dict(self.model_extra or {})


class ConfigFile(ConfigSection):
    """The sections of a configuration file."""

    server: ServerConfig = ServerConfig()
    limits: LimitsSection = LimitsSection()  # type: ignore[valid-type]
    admission: AdmissionConfig = AdmissionConfig()
    compat: CompatConfig = CompatConfig()
    replies: RepliesConfig = RepliesConfig()
    apology: ApologyConfig = ApologyConfig()
    transcription: TranscriptionConfig = TranscriptionConfig()
    hands_free: HandsFreeConfig = HandsFreeConfig()
    llm: dict[str, ServiceConfig]
    asr: dict[str, ServiceConfig]
    tts: dict[str, ServiceConfig]
    images: dict[str, MediaServiceConfig] = {}
    videos: dict[str, MediaServiceConfig] = {}
    vision: dict[str, MediaServiceConfig] = {}
    ocr: dict[str, MediaServiceConfig] = {}
    enhancers: dict[str, MediaServiceConfig] = {}
    video_processors: dict[str, MediaServiceConfig] = {}
    embedders: dict[str, MediaServiceConfig] = {}
    media: MediaConfig = MediaConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    records: RecordsConfig = RecordsConfig()
    prices: PricesConfig = PricesConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    platforms: dict[str, PlatformConfig] = {}
    tools: dict[str, ToolConfig] = {}
    devices: DevicesConfig = DevicesConfig()
    wyoming: WyomingConfig = WyomingConfig()
    phone: PhoneConfig = PhoneConfig()
    resumption: ResumptionConfig = ResumptionConfig()
    cluster: ClusterConfig = ClusterConfig()
    agents: dict[str, AgentConfig] = {}
    dialects: dict[str, DialectConfig] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A complete, validated configuration.

    ``llm``, ``asr`` and ``tts`` always contain the name ``default``.
    """

    server: ServerConfig
    limits: SessionLimits
    admission: AdmissionConfig
    compat: CompatConfig
    replies: RepliesConfig
    apology: ApologyConfig
    transcription: TranscriptionConfig
    llm: Mapping[str, ServiceConfig]
    asr: Mapping[str, ServiceConfig]
    tts: Mapping[str, ServiceConfig]
    tools: Mapping[str, ToolConfig]
    media_services: Mapping[MediaKind, Mapping[str, MediaServiceConfig]] = field(
        default_factory=dict
    )
    """The services for pictures, videos and embeddings, by kind."""
    media: MediaConfig = field(default_factory=MediaConfig)
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    prices: PricesConfig = field(default_factory=PricesConfig)
    webhooks: WebhooksConfig = field(default_factory=WebhooksConfig)
    platforms: Mapping[str, PlatformConfig] = field(default_factory=dict)
    agents: Agents = field(default_factory=Agents)
    """The agents; the name ``default`` always exists."""
    devices: DevicesConfig = field(default_factory=DevicesConfig)
    wyoming: WyomingConfig = field(default_factory=WyomingConfig)
    phone: PhoneConfig = field(default_factory=PhoneConfig)
    resumption: ResumptionConfig = field(default_factory=ResumptionConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    dialects: Mapping[str, DialectConfig] = field(default_factory=dict)
    """Protocols besides the built-in ones."""
    data_dir: Path
    hands_free: HandsFreeConfig = field(default_factory=HandsFreeConfig)
    api_key: str | None = field(default=None, repr=False)
    """The key of the environment, which opens everything."""
    file: Path | None = None
    """The file that was read; None without one."""
    registries: RegistrySettings = field(default_factory=RegistrySettings, repr=False)
    """Package registries that the environment names; their URLs may hold passwords."""
    local_models: LocalModels = field(default_factory=LocalModels)
    """The pulled models, from which the gaps of the file were filled."""
