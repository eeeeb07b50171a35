"""What a client sets about answers, for the session or for one response: instructions,
modality, tools, length.
"""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import ValidationError

from voicechat.dialects.base import Connection
from voicechat.dialects.openai_realtime.audio_settings import OutputAudio, SessionPart
from voicechat.dialects.openai_realtime.tools import (
    FUNCTION,
    MCP,
    ToolList,
    ToolOffer,
    check_choice,
)
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.checked import Check, first_failure, one_of
from voicechat.schema.json_text import shown
from voicechat.session.types import ReplyOverrides, Settings, VoiceSettings

MAX_METADATA = 16
MAX_OUTPUT_TOKENS = 1_000_000


def _check_modalities(modalities: list[str]) -> list[str]:
    if modalities not in (["audio"], ["text"]):
        raise ValueError('must be ["audio"] or ["text"]')
    return modalities


def _check_tokens(tokens: object) -> object:
    if tokens == "inf" or (isinstance(tokens, int) and 1 <= tokens <= MAX_OUTPUT_TOKENS):
        return tokens
    raise ValueError(f'{shown(tokens)} is not "inf" or between 1 and {MAX_OUTPUT_TOKENS}')


def _check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > MAX_METADATA:
        raise ValueError(f"{len(metadata)} pairs are more than {MAX_METADATA}")
    return metadata


_Choice = Annotated[Any, Check(check_choice, {})]
_Modalities = Annotated[list[str], Check(_check_modalities, {})]
_Tokens = Annotated[Any, Check(_check_tokens, {})]


class _Reasoning(SessionPart):
    effort: str | None = None


class Answering(SessionPart):
    """The fields that a session and a single response share."""

    instructions: str | None = None
    output_modalities: _Modalities | None = None
    tools: ToolList | None = None
    tool_choice: _Choice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: _Tokens | None = None
    reasoning: _Reasoning | None = None

    def options(self, offer: ToolOffer) -> dict[str, object]:
        """Return the options for the chat model that are set here. ``offer`` holds the
        tools in force.
        """
        options: dict[str, object] = {}
        if self.tools is not None:
            options["tools"] = [*offer.definitions]
        if self.tool_choice is not None:
            options["tool_choice"] = offer.chat_choice(self.tool_choice)
        if self.parallel_tool_calls is not None:
            options["parallel_tool_calls"] = self.parallel_tool_calls
        if self.max_output_tokens not in (None, "inf"):
            options["max_tokens"] = self.max_output_tokens
        if self.reasoning is not None and self.reasoning.effort:
            options["reasoning_effort"] = self.reasoning.effort
        return options

    def written(self) -> dict[str, object]:
        """Return the fields in force, as the protocol writes them."""
        tools = self.tools or []
        return {
            "instructions": self.instructions or "",
            "output_modalities": self.output_modalities or ["audio"],
            "tools": [tool.written() for tool in tools],
            "tool_choice": self.tool_choice or "auto",
            "max_output_tokens": self.max_output_tokens or "inf",
        }


class _ResponseVoice(SessionPart):
    output: OutputAudio | None = None


class ResponseWishes(Answering):
    """What a client asks for in one response; None: the session's value."""

    conversation: Annotated[str, one_of("auto", "none")] = "auto"
    input: list[Any] | None = None
    metadata: Annotated[dict[str, str], Check(_check_metadata, {})] | None = None
    audio: _ResponseVoice | None = None

    @property
    def out_of_band(self) -> bool:
        """Whether the response is no part of the conversation."""
        return self.conversation == "none"

    def voice(self, connection: Connection, before: VoiceSettings) -> VoiceSettings | None:
        """Return how the response is to be spoken; None: as the session's settings
        say.
        """
        wished = None if self.audio is None else self.audio.output
        if wished is None:
            return None
        own = wished.settings(connection, connection.agent, before)
        given = wished.model_fields_set
        return replace(
            before,
            voice=own.voice if "voice" in given else before.voice,
            format=own.format if "format" in given else before.format,
            speech_rate=own.speech_rate if "speed" in given else before.speech_rate,
        )

    def overrides(
        self,
        connection: Connection,
        before: Settings,
        messages: tuple[Any, ...] | None,
        offer: ToolOffer,
    ) -> ReplyOverrides:
        """Return the engine's overrides. ``messages`` is what the model reads; None:
        the conversation.
        """
        options = self.options(offer)
        if self.out_of_band:
            options["tools"] = [*offer.definitions]
        return ReplyOverrides(
            instructions=self.instructions,
            options=options or None,
            spoken=None if self.output_modalities is None else self.output_modalities == ["audio"],
            voice=self.voice(connection, before.voice),
            input=messages,
            out_of_band=self.out_of_band,
        )


def read_wishes(value: object) -> ResponseWishes:
    """Read the ``response`` of a ``response.create``. Raises ``RemoteProtocolError`` as
    ``updated`` does.
    """
    try:
        return ResponseWishes.model_validate({} if value is None else value)
    except ValidationError as error:
        message = f"response.{failure_of(error)}"
        raise RemoteProtocolError(Status.INVALID_PARAMETER, message) from error


def failure_of(error: ValidationError) -> str:
    """Return the path of the first invalid field, and the values that it allows."""
    return first_failure(error, unnamed=(FUNCTION, MCP))
