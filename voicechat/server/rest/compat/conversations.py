"""Chat whose history the server keeps."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from voicechat.errors import RemoteProtocolError, Status
from voicechat.providers.interfaces import ChatModel, ChatRequest, TextDelta
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth import Principal
from voicechat.server.rest.chat import bounded_parts
from voicechat.server.rest.transcribing import owner_of
from voicechat.session.types import Message
from voicechat.store.conversations import ConversationStore

MOST_CODE_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class KeptConversation:
    """One conversation of a key, and its next message."""

    store: ConversationStore
    owner: str
    code: str
    messages: tuple[Message, ...]

    async def reply(
        self, model: ChatModel, options: dict[str, object]
    ) -> AsyncGenerator[str, None]:
        """Yield the pieces of the reply. The exchange is stored once the reply is
        complete.

        Raises ``ServiceFailedError``; then nothing is stored.
        """
        text = ""
        parts = bounded_parts(model, ChatRequest(messages=self.messages, options=options))
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, TextDelta) and part.text:
                    text += part.text
                    yield part.text
        said: Message = {"role": "assistant", "content": text}
        messages = [*self.messages, said]
        await asyncio.to_thread(self.store.keep, self.owner, self.code, messages, int(unix_s()))


async def continue_conversation(
    store: ConversationStore,
    principal: Principal,
    code: str,
    instructions: Sequence[Message],
    said: Sequence[Message],
    path: str,
) -> KeptConversation:
    """Return the conversation ``code`` with its next message.

    An unknown code begins a new conversation under that code, and an empty one under a
    generated code. A new conversation begins with ``instructions``. Raises
    ``RemoteProtocolError`` naming ``path``.
    """
    if len(code) > MOST_CODE_CHARACTERS:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{path}: longer than {MOST_CODE_CHARACTERS} characters"
        )
    owner = owner_of(principal.project, principal.key_id, principal.holder)
    earlier = await asyncio.to_thread(store.messages, owner, code, int(unix_s())) if code else []
    messages = (*(earlier or instructions), *said)
    return KeptConversation(store, owner, code or secrets.token_urlsafe(18), messages)
