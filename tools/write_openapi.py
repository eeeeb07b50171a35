"""Write ``protocol/openapi.json`` from the code: ``python -m tools.write_openapi``."""

import asyncio
import json
from pathlib import Path
from typing import Any

from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.services import Services
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.media.files import MediaSettings
from voicechat.server.rest.media.media import Media
from voicechat.server.rest.operation import Operation
from voicechat.server.rest.routes import document_of, rest_operations
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcription_settings import TranscriptionSettings
from voicechat.session.limits import SessionLimits
from voicechat.store.tasks.on_demand import TaskSettings

COMMITTED = Path(__file__).parents[1] / "protocol" / "openapi.json"


async def nobody(*_: object, **__: object) -> Any:
    raise AssertionError("no request is made")


async def all_operations() -> list[Operation]:
    services = Services({}, {}, {})
    backend = Backend(services, limits=SessionLimits(), max_requests=1, authorise=nobody)
    settings = TranscriptionSettings(tasks=TaskSettings(folder=Path("nowhere")))
    transcriber = Transcriber(services, settings, decoding=open_decoding(), account_of=nobody)
    media = Media(backend, transcriber, MediaSettings(folder=Path("nowhere")))
    return rest_operations(backend, nobody, transcriber, media)


def main() -> None:
    """Write the document in place of the committed one."""
    document = document_of(asyncio.run(all_operations()))
    COMMITTED.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
