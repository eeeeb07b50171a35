"""Any OpenAI-compatible service: a chat model, a synthesiser, a recogniser, pictures,
videos, descriptions of pictures, embeddings. See ``docs/providers/openai.md``.
"""

from typing import Annotated, Literal

from pydantic import Field

from voicechat.audio.formats import HIGHEST_RATE_HZ, LOWEST_RATE_HZ
from voicechat.audio.pause_detection import PAUSE_MS
from voicechat.providers.chat_describer import ChatDescriber
from voicechat.providers.openai_chat import OpenAIChatModel
from voicechat.providers.openai_embeddings import EmbeddingSettings, OpenAIEmbedder
from voicechat.providers.openai_http import CONNECT_MS, READ_TIMEOUT_MS, OpenAIEndpoint
from voicechat.providers.openai_images import OpenAIImages
from voicechat.providers.openai_speech import RATE_HZ, VOICES, OpenAISynthesizer
from voicechat.providers.openai_transcription import OpenAIRecognizer
from voicechat.providers.openai_videos import OpenAIVideos
from voicechat.providers.thinking import ThinkingForm
from voicechat.providers.utterances import MAX_UTTERANCE_MS, PARTIAL_EVERY_MS, Schedule

BASE_URL = "https://api.openai.com/v1"


def open_chat_model(  # noqa: PLR0913 - the keys of a section
    *,
    model: str,
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    connect_ms: Annotated[int, Field(ge=1)] = CONNECT_MS,
    read_timeout_ms: Annotated[int, Field(ge=1)] = READ_TIMEOUT_MS,
    include_usage: bool = True,
    starts_thinking: bool = False,
    thinking: ThinkingForm | None = None,
) -> OpenAIChatModel:
    """Open the chat model.

    ``model``: its name at the endpoint. ``base_url`` may have a query, and ``headers``
    are sent with every request. ``connect_ms``: limit for the TCP connection.
    ``read_timeout_ms``: limit between two pieces of a reply, a backstop behind the
    engine's own deadlines. ``include_usage``: false for old servers that refuse
    ``stream_options``. ``starts_thinking``: true for servers whose template opens the
    thought, so that a reply has only the closing ``</think>``. ``thinking``: the form
    of the server's option for thinking; unset: as the client wrote it. Raises
    `ConfigError` for an unusable URL, key or header.
    """
    endpoint = OpenAIEndpoint(
        base_url, api_key, connect_ms=connect_ms, read_timeout_ms=read_timeout_ms, headers=headers
    )
    return OpenAIChatModel(
        endpoint,
        model,
        include_usage=include_usage,
        starts_thinking=starts_thinking,
        thinking=thinking,
    )


def open_synthesizer(  # noqa: PLR0913 - the keys of a section
    *,
    model: str,
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    voices: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)
    ] = VOICES,
    response_format: Literal["pcm", "wav"] = "pcm",
    rate_hz: Annotated[int, Field(ge=LOWEST_RATE_HZ, le=HIGHEST_RATE_HZ)] = RATE_HZ,
    instructions: str = "",
    obeys_speed: bool = True,
) -> OpenAISynthesizer:
    """Open the synthesiser.

    ``base_url`` and ``headers`` as for the chat model. ``voices``: names that a client
    may request, the default first. ``response_format``: ``wav`` for servers without
    ``pcm``. ``rate_hz``: of ``pcm``; a WAV file contains its own. ``instructions``: how
    to speak, for models that take them. ``obeys_speed``: false for models that ignore
    ``speed``; the engine then changes the finished speech. Raises `ConfigError` for an
    unusable URL or key.
    """
    endpoint = OpenAIEndpoint(base_url, api_key, headers=headers)
    fields: dict[str, object] = {"model": model, "response_format": response_format}
    if instructions:
        fields["instructions"] = instructions
    return OpenAISynthesizer(
        endpoint, fields, voices=voices, rate_hz=rate_hz, obeys_speed=obeys_speed
    )


def open_recognizer(  # noqa: PLR0913 - the keys of a section
    *,
    model: str,
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    language: str = "",
    prompt: str = "",
    pause_ms: Annotated[int, Field(ge=100, le=10_000)] = PAUSE_MS,
    partial_every_ms: Annotated[int, Field(ge=0, le=10_000)] = PARTIAL_EVERY_MS,
    max_utterance_ms: Annotated[int, Field(ge=3_000, le=30_000)] = MAX_UTTERANCE_MS,
) -> OpenAIRecognizer:
    """Open the recogniser.

    ``base_url`` and ``headers`` as for the chat model. ``language``: ISO 639-1, such as
    ``zh``; empty: the model detects it. ``prompt``: names and words to expect.
    ``pause_ms``: silence that ends a sentence. ``partial_every_ms``: speech after which
    a sentence is sent again for a partial result; 0: only when it is complete, which
    costs least. ``max_utterance_ms``: speech without a pause is cut here. Raises
    `ConfigError` for an unusable URL or key.
    """
    endpoint = OpenAIEndpoint(base_url, api_key, headers=headers)
    fields = {"model": model, "language": language, "prompt": prompt}
    schedule = Schedule(
        pause_ms=pause_ms, partial_every_ms=partial_every_ms, max_utterance_ms=max_utterance_ms
    )
    return OpenAIRecognizer(
        endpoint, {key: value for key, value in fields.items() if value}, schedule
    )


def open_image_generator(
    *,
    model: str = "",
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    edits: bool = True,
    read_timeout_ms: Annotated[int, Field(ge=1)] = READ_TIMEOUT_MS,
) -> OpenAIImages:
    """Open the images API, ``images/generations`` and ``images/edits``.

    ``model``: its name at the endpoint; empty: the one that the client names.
    ``edits``: false for a server that only makes new pictures. ``read_timeout_ms``:
    limit for a picture. The others as for the chat model. Raises `ConfigError`.
    """
    endpoint = OpenAIEndpoint(base_url, api_key, read_timeout_ms=read_timeout_ms, headers=headers)
    return OpenAIImages(endpoint, model, edits=edits)


def open_video_generator(
    *,
    model: str = "",
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    poll_s: Annotated[float, Field(gt=0, le=60)] = 5.0,
    total_s: Annotated[float, Field(gt=0, le=86_400)] = 3_600.0,
) -> OpenAIVideos:
    """Open the videos API.

    ``model``: as for pictures. ``poll_s``: interval between polls of a video in
    progress; ``total_s``: limit for the whole job. Raises `ConfigError`.
    """
    endpoint = OpenAIEndpoint(base_url, api_key, headers=headers)
    return OpenAIVideos(endpoint, model, poll_s=poll_s, total_s=total_s)


def open_describer(
    *,
    model: str,
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 1_000,
) -> ChatDescriber:
    """Open a chat model that accepts images. The keys are the same as for the chat
    model; ``max_tokens`` bounds a description. Raises `ConfigError`.
    """
    chat = open_chat_model(model=model, base_url=base_url, api_key=api_key, headers=headers)
    return ChatDescriber(chat, max_tokens=max_tokens)


def open_embedder(  # noqa: PLR0913 - the keys of a section
    *,
    model: str,
    base_url: str = BASE_URL,
    api_key: str = "",
    headers: dict[str, str] | None = None,
    dimensions: Annotated[int, Field(ge=1, le=16_384)] | None = None,
    asks_dimensions: bool = True,
    query_prefix: str = "",
    passage_prefix: str = "",
    batch: Annotated[int, Field(ge=1, le=2_048)] = 64,
    images: bool = False,
) -> OpenAIEmbedder:
    """Open the embeddings API.

    ``base_url`` and ``headers`` as for the chat model. ``dimensions``: length of the
    vectors, unless a client wants another; unset: the model's own. ``asks_dimensions``:
    false for servers or models that know no such option; their vectors are then cut or
    filled with zeros here. ``query_prefix`` and ``passage_prefix``: what the model
    wants before a question and before what is searched, such as ``query: ``. ``batch``:
    the most texts of one request. ``images``: whether pictures are accepted, in Jina's
    form. Raises `ConfigError` for an unusable URL, key or header.
    """
    endpoint = OpenAIEndpoint(base_url, api_key, headers=headers)
    settings = EmbeddingSettings(
        model=model,
        dimensions=dimensions,
        asks_dimensions=asks_dimensions,
        query_prefix=query_prefix,
        passage_prefix=passage_prefix,
        batch=batch,
        images=images,
    )
    return OpenAIEmbedder(endpoint, settings)
