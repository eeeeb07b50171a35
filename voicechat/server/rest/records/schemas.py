"""The contents of answers about records and usage."""

from typing import Any, Literal

from voicechat.server.rest.schemas import ResponseModel


class RecordItem(ResponseModel):
    """A record as it stands in a list. Times are milliseconds."""

    object: Literal["record"] = "record"
    id: str
    state: Literal["live", "ended", "done", "cut"]
    """`ended`: its summary and audio are being made. `cut`: done, but the server died
    during the conversation.
    """
    agent: str
    dialect: str
    key: str
    """The id of the key, or the name of an endpoint without keys."""
    user: str
    """The holder of the token that opened the session, as a digest; empty: none."""
    caller: str
    device: str
    mode: Literal["text", "audio"]
    began_at: int
    """Unix time in milliseconds."""
    duration_ms: int
    turns: int
    interruptions: int
    failures: int
    gaps: int
    """How often entries could not be written."""
    slowest_ms: int | None
    """The longest time from the user's last sound to the first audio of a reply."""
    opening: str
    """The first words of the conversation."""
    ending: str
    audio_bytes: int
    expires_at: int
    """When it is deleted: Unix time in milliseconds."""


class RecordPage(ResponseModel):
    """Records, the newest first."""

    object: Literal["list"] = "list"
    data: list[RecordItem]
    has_more: bool
    next: str | None
    """The `after` of the next page."""


class UsageCounts(ResponseModel):
    """What was used."""

    length_ms: int
    """How long sessions were open."""
    heard_ms: int
    """Audio that recognisers got."""
    spoken_ms: int
    """Speech that was synthesised, heard or not."""
    prompt_tokens: int
    completion_tokens: int
    characters: int
    """Characters of text that was synthesised."""
    cost: float
    """By the prices of the configuration."""


class RecordDetails(RecordItem):
    """A record with its summary."""

    summary: dict[str, Any]
    """`turns`: what each side said, how much of each reply was heard, its latency by
    stages, its tools; `failures`; `gaps`.
    """
    usage: UsageCounts | None
    """Null until it has been stored."""
    currency: str


class ErasedRecords(ResponseModel):
    """How many records were deleted."""

    object: Literal["records.deleted"] = "records.deleted"
    deleted: int
    in_progress: int
    """Conversations that go on: delete again once they have ended."""


class UsageGroup(UsageCounts):
    """The usage of one group."""

    group: str
    """The day, key, agent or session."""
    sessions: int


class UsageAnswer(ResponseModel):
    """Usage by groups, and in all."""

    object: Literal["usage"] = "usage"
    by: Literal["day", "key", "agent", "session"]
    currency: str
    data: list[UsageGroup]
    total: UsageCounts
