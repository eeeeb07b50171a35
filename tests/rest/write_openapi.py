"""Writes ``protocol/openapi.json`` from the code: ``python -m tests.rest.write_openapi``."""

import asyncio
import json

from tests.rest.test_openapi import COMMITTED, all_operations
from voicechat.server.rest.routes import document_of

if __name__ == "__main__":
    document = document_of(asyncio.run(all_operations()))
    COMMITTED.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", "utf-8")
