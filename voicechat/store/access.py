"""The access of a key or token: its endpoints, its projects and its quota."""

from dataclasses import dataclass
from enum import Enum


class ApiEndpoint(Enum):
    """A family of endpoints. A key's scope lists such names."""

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
    MEDIA = "media"
    """Pictures and videos: generation, editing, description and text recognition."""
    KNOWLEDGE = "knowledge"
    """Documents and Q&A records, parsing of documents, embeddings."""
    RECORDS = "records"
    """The records of conversations, and what was used. Only keys that name it."""
    TOKENS = "tokens"
    """The creation of short-lived tokens."""

    @property
    def uses_audio(self) -> bool:
        """Whether its requests draw on a quota of audio."""
        return self not in (
            ApiEndpoint.CHAT,
            ApiEndpoint.MEDIA,
            ApiEndpoint.KNOWLEDGE,
            ApiEndpoint.RECORDS,
            ApiEndpoint.TOKENS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The endpoints and projects of a key or token. An empty tuple means all, but for
    ``RECORDS``, which a scope must name: it shows what other users have said.
    """

    projects: tuple[str, ...] = ()
    """The first project is also used for requests that name none."""
    endpoints: tuple[ApiEndpoint, ...] = ()

    def opens(self, endpoint: ApiEndpoint) -> bool:
        """Return whether requests to ``endpoint`` are allowed."""
        named = endpoint in self.endpoints
        return named or (not self.endpoints and endpoint is not ApiEndpoint.RECORDS)

    def serves(self, project: str) -> bool:
        """Return whether requests for ``project`` are allowed."""
        return not self.projects or project in self.projects


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The limits of a key; None: unlimited."""

    max_sessions: int | None = None
    """Most sockets and requests in progress, together."""
    requests_per_minute: int | None = None
    """Requests per minute, including the opening of sockets."""
    audio_seconds_per_day: int | None = None
    """Audio recognised and spoken, together; a day begins at midnight UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The scope, quota and expiry of a key."""

    scope: Scope = Scope()
    quota: Quota = Quota()
    expires_s: int | None = None
    """Unix time at which the key expires; None: never."""


EVERYTHING = Grant()
"""Every endpoint and project, without quota or expiry."""
