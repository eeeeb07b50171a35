"""Parsing of documents: the document's samples, its table, and what is refused."""

import asyncio
import gc
import io
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from fastmodels import Client

from tests.compat.stage import Stage, media_stage, run_sample
from tests.documents.material import docx_file, docx_of, pdf_file, pptx_file, scanned_pdf, xlsx_file
from tests.rest.live import KEY, PROJECT
from voicechat.server.rest.knowledge.doc_parse import MAX_BYTES

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]
HOST = "https://www.sophnet.com"
PATH = f"{PROJECT}/easyllms/doc-parse"
DOC = Path(__file__).parents[1] / "documents/assets/installation.doc"
ROW = "| X-1 | 100 W |"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with media_stage(tmp_path_factory.mktemp("documents")) as stage:
        yield stage


async def parse(stage: Stage, content: bytes | None, **fields: str) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData(default_to_multipart=True)
    if content is not None:
        form.add_field("file", io.BytesIO(content), filename="文档.bin")
    for name, value in fields.items():
        form.add_field(name, value)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(stage.live.url + PATH, data=form, headers=headers) as response,
    ):
        return response.status, await response.json()


async def test_the_documents_curl_sends_every_format(stage: Stage, tmp_path: Path) -> None:
    for name, content in {
        "a.pdf": pdf_file(),
        "a.docx": docx_file(),
        "a.doc": DOC.read_bytes(),
        "a.xlsx": xlsx_file(),
        "a.pptx": pptx_file(),
        "a.txt": f"正文\n\n{ROW}".encode("gb18030"),
    }.items():
        (tmp_path / name).write_bytes(content)
        changed = {HOST: stage.live.url, "{projectId}": "p", "YOUR_DOCUMENT": name}
        answer = json.loads(await run_sample("sophnet/doc_parse.sh", tmp_path, changed))
        assert set(answer) == {"data"}
        assert ROW in answer["data"], name


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the SDK leaves it open
async def test_the_vendors_own_sdk(stage: Stage, tmp_path: Path) -> None:
    document = tmp_path / "手册.docx"
    document.write_bytes(docx_file())
    client = Client(api_key=KEY, project_id="p")
    parser = client.easyllm.doc_parse
    parser.base_url = parser.base_url.replace("https://platform.fastmodels.cn", stage.live.url)
    loop = asyncio.get_running_loop()
    # The thread ends, and with it the last references to the SDK's open files, while
    # their warnings are still ignored.
    with ThreadPoolExecutor(1) as thread:
        parse_file = partial(parser.create, file_path=str(document))
        found = await loop.run_in_executor(
            thread, partial(parse_file, easyllm_id="YOUR_SERVICE_ID")
        )
        assert found.data.startswith("# 安装 Installation\n\n先打开电源")
        document.write_bytes(b"\x89PNG\r\n\x1a\n")
        with pytest.raises(RuntimeError, match="请求失败: file: the document is a picture"):
            await loop.run_in_executor(thread, partial(parse_file, easyllm_id="x"))
    gc.collect()


async def test_scanned_pages_are_read_by_the_ocr_service(stage: Stage) -> None:
    status, answer = await parse(stage, scanned_pdf(), easyllm_id="x")
    assert status == 200
    assert answer["data"].startswith("测试\n\n| a | b |")
    assert answer["data"].endswith("This page can be read.")


async def test_what_is_refused(stage: Stage) -> None:
    for content, fields, status, code, message in (
        (b"text", {}, 400, 40003, "easyllm_id: must"),
        (b"text", {"easyllm_id": ""}, 400, 40003, "easyllm_id: "),
        (None, {"easyllm_id": "x"}, 400, 40003, "file: must be present"),
        (b"", {"easyllm_id": "x"}, 400, 40003, "file: is empty"),
        (docx_of("<w:p/>"), {"easyllm_id": "x"}, 415, 41501, "file: the document contains no text"),
        (bytes(MAX_BYTES + 1), {"easyllm_id": "x"}, 413, 41301, "file: the file may have"),
    ):
        got, answer = await parse(stage, content, **fields)
        assert (got, answer["status"]) == (status, code), answer
        assert answer["message"].startswith(message), answer
    assert (await stage.live.ask(PATH, {"easyllm_id": "x"}, key="no")).status == 401
    refused = await stage.live.ask(PATH, {"easyllm_id": "x"})
    assert refused.json["message"] == "Content-Type: should be multipart/form-data"
