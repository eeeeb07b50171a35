"""Writes ``protocol/openapi.json`` from the code: ``python -m tests.rest.write_openapi``."""

import asyncio
import json

from tests.rest.test_openapi import COMMITTED, nobody
from voicechat.runtime.services import Services
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.routes import document_of, rest_operations
from voicechat.session.limits import SessionLimits


async def _document() -> str:
    backend = Backend(Services({}, {}, {}), limits=SessionLimits(), max_requests=1, authorise=nobody)
    document = document_of(rest_operations(backend, lambda grant, life_s: ""))
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(asyncio.run(_document()), "utf-8")
