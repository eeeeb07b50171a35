"""What a key or token opens: its endpoints and projects, and how much it may use."""

from dataclasses import dataclass
from enum import Enum


class ApiEndpoint(Enum):
    """A family of endpoints, as a key's scope names it."""

    CONVERSATION = "conversation"
    """The conversation socket, and chat with voice output."""
    RECOGNITION = "recognition"
    """The recognition socket."""
    CHAT = "chat"
    """Chat completions and the list of models."""
    SPEECH = "speech"
    """Text to voice."""
    TRANSCRIPTION = "transcription"
    """Speech to text of recordings."""
    TOKENS = "tokens"
    """The making of short-lived tokens."""

    @property
    def uses_audio(self) -> bool:
        """Whether its requests draw on a quota of audio."""
        return self not in (ApiEndpoint.CHAT, ApiEndpoint.TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a key or token is valid. An empty tuple means everywhere."""

    projects: tuple[str, ...] = ()
    """The first one also serves requests that name no project."""
    endpoints: tuple[ApiEndpoint, ...] = ()

    def opens(self, endpoint: ApiEndpoint) -> bool:
        """Whether requests to ``endpoint`` are allowed."""
        return not self.endpoints or endpoint in self.endpoints

    def serves(self, project: str) -> bool:
        """Whether requests for ``project`` are allowed."""
        return not self.projects or project in self.projects


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much a key may use; None: as much as the server gives."""

    max_sessions: int | None = None
    """Sockets and requests in progress, together."""
    requests_per_minute: int | None = None
    """Requests that begin, the opening of a socket included."""
    audio_seconds_per_day: int | None = None
    """Audio recognised and audio spoken, together; a day begins at midnight UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Everything that is settled when a key is made."""

    scope: Scope = Scope()
    quota: Quota = Quota()
    expires_s: int | None = None
    """Unix time from which on the key is invalid; None: never."""


EVERYTHING = Grant()
"""Every endpoint and project, without quota, for ever."""
