"""A provider that only remembers what its section said."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from voicechat.providers.interfaces import ChatRequest, ReplyPart


@dataclass
class Told:
    api_key: str
    limit: float
    other: object
    headers: dict[str, str] | None = None

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        raise NotImplementedError
        yield


def open_told(
    *,
    api_key: str,
    limit: float = 1,
    other: object = None,
    headers: dict[str, str] | None = None,
) -> Told:
    return Told(api_key, limit, other, headers)
