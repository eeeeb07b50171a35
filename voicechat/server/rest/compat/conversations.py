"""Chat whose history the server keeps."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from voicechat.errors import RemoteProtocolError, Status
from voicechat.providers.interfaces import ChatModel
from voicechat.runtime.context_window import ContextWindow
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth import Principal
from voicechat.server.rest.compat.parts import text_pieces
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
    earlier: tuple[Message, ...]
    """The messages so far; of a new conversation what it begins with."""
    said: tuple[Message, ...]
    """The next message."""

    async def reply(
        self, model: ChatModel, options: dict[str, object]
    ) -> AsyncGenerator[str, None]:
        """Yield the pieces of the reply. The exchange is stored once the reply is
        complete. What is too long for the model loses its oldest messages.

        Raises ``ServiceFailedError``; then nothing is stored.
        """
        text = ""
        messages = (*self.earlier, *self.said)
        async with aclosing(text_pieces(ContextWindow(model), messages, options)) as pieces:
            async for piece in pieces:
                text += piece
                yield piece
        exchange = [*self.said, {"role": "assistant", "content": text}]
        await asyncio.to_thread(
            self.store.add, self.owner, self.code, self.earlier, exchange, int(unix_s())
        )


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
    code = code or secrets.token_urlsafe(18)
    return KeptConversation(store, owner, code, tuple(earlier or instructions), tuple(said))
