"""Each row of the document's tables about files and Q&A records, and its samples."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.knowledge.stage import (
    KEY,
    MOST_BYTES,
    OTHER_KEY,
    SERVICE,
    KnowledgeStage,
    knowledge_stage,
    run_sample,
)
from voicechat.knowledge.interface import MAX_FILES, FileStatus, KnowledgeScope

pytestmark = pytest.mark.real_time

FILES = f"{SERVICE}/files"
RECORDS = f"{SERVICE}/qa-records"
TEXT = "Breakfast is served from seven to ten.\n\nDogs may stay for 20 euros a night."
CREATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
QA = {"question": "你是谁?", "answer": "我是SophNet智能助手。"}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[KnowledgeStage]:
    async with knowledge_stage(tmp_path) as stage:
        yield stage


def _is_envelope(answer: dict[str, Any], keys: set[str]) -> None:
    assert set(answer) == keys
    assert (answer["status"], answer["message"]) == (0, "请求成功")
    assert answer["timestamp"] > 1_700_000_000_000


async def test_an_uploaded_file_is_told_as_the_document_does(stage: KnowledgeStage) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"slow " + TEXT.encode(), filename="C:\\Docs\\你的文档.txt")
    form.add_field("easyllm_id", "anna")
    status, answer = await stage.ask("POST", FILES, data=form)
    assert status == 200
    _is_envelope(answer, {"status", "message", "result", "timestamp"})
    result = answer["result"]
    assert result["title"] == "你的文档.txt"
    assert result["snippet"] is None
    assert result["status"] == "UPLOADING"
    assert CREATED.fullmatch(result["createdAt"])
    assert result["id"]


async def test_every_status_and_what_it_allows(stage: KnowledgeStage) -> None:
    states = {"slow": "UPLOADING", "bad": "ERROR", "good": "ENABLED", "other": "NOT_ENABLED"}
    ids = {name: (await stage.upload(f"{name} text"))["id"] for name in states}
    changed = {"status": "NOT_ENABLED"}
    status, answer = await stage.ask("POST", f"{FILES}/{ids['other']}", json=changed)
    assert (status, answer["result"]["status"]) == (200, "NOT_ENABLED")
    _, answer = await stage.ask("GET", FILES)
    listed = {item["id"]: item for item in answer["result"]["list"]}
    assert {name: listed[ids[name]]["status"] for name in states} == states
    assert listed[ids["bad"]]["error"] == "it is broken"
    assert listed[ids["good"]]["snippet"] == "good text"
    assert [listed[ids[name]]["progress"] for name in states] == [0.25, 1, 1, 1]
    for name, readable, deletable in (
        ("slow", False, False),
        ("bad", False, True),
        ("good", True, True),
        ("other", True, True),
    ):
        path = f"{FILES}/{ids[name]}"
        status, answer = await stage.ask("GET", path)
        assert status == (200 if readable else 409), name
        if not readable:
            assert answer["status"] == 40901
            assert answer["message"] == (
                f"fileId: a file with the status {states[name]} cannot be read"
            )
        status, answer = await stage.ask("DELETE", path)
        assert status == (200 if deletable else 409), name
        if deletable:
            _is_envelope(answer, {"status", "message", "timestamp"})
            assert (await stage.ask("GET", path))[0] == 404


async def test_a_files_content_and_its_original(stage: KnowledgeStage) -> None:
    file = await stage.upload(TEXT)
    _, answer = await stage.ask("GET", f"{FILES}/{file['id']}")
    result = answer["result"]
    assert result["content"] == TEXT
    assert result["title"] == "handbook.txt"
    assert CREATED.fullmatch(result["createdAt"])
    headers = {"Authorization": f"Bearer {KEY}"}
    async with stage.session.get(result["downloadUrl"], headers=headers) as download:
        assert await download.read() == TEXT.encode()
        assert download.headers["Content-Disposition"] == (
            "attachment; filename*=UTF-8''handbook.txt"
        )
        assert download.headers["X-Content-Type-Options"] == "nosniff"
    async with stage.session.get(result["downloadUrl"]) as download:
        assert download.status == 401
    await stage.ask("DELETE", f"{FILES}/{file['id']}")
    assert not list((stage.folder / "files").iterdir()), "the bytes are gone with the file"


async def test_a_long_text_is_told_whole(stage: KnowledgeStage) -> None:
    file = await stage.upload("text")
    markdown = '段落 "one"\\ \n😀' * 20_000
    await stage.store.put_passages("hotel", file["id"], markdown, [], pages=1)
    _, answer = await stage.ask("GET", f"{FILES}/{file['id']}")
    assert answer["result"]["content"] == markdown
    assert next(iter(answer["result"])) == "id"
    assert answer["status"] == 0


async def test_pages_of_a_list(stage: KnowledgeStage) -> None:
    ids = [(await stage.upload(f"text {number}"))["id"] for number in range(3)]
    _, answer = await stage.ask("GET", f"{FILES}?pageNum=2&&pageSize=2")
    result = answer["result"]
    assert [item["id"] for item in result.pop("list")] == [ids[0]]
    assert result == {"pageNum": 2, "pageSize": 2, "size": 1, "pages": 2, "total": 3}
    _, answer = await stage.ask("GET", FILES)
    assert [answer["result"][name] for name in ("pageNum", "pageSize", "pages")] == [1, 10, 1]
    assert [item["id"] for item in answer["result"]["list"]] == ids[::-1], "the newest first"
    _, answer = await stage.ask("GET", f"{RECORDS}?pageNum=7")
    assert answer["result"]["list"] == []
    assert [answer["result"][name] for name in ("size", "pages", "total")] == [0, 0, 0]


async def test_pages_that_cannot_be(stage: KnowledgeStage) -> None:
    for path in (FILES, RECORDS):
        for query, message in (
            ("pageNum=0", 'pageNum: "0" is not a whole number from 1 to 999999999'),
            ("pageNum=x", 'pageNum: "x" is not a whole number from 1 to 999999999'),
            ("pageSize=1001", 'pageSize: "1001" is not a whole number from 1 to 1000'),
            ("pageSize=-1", 'pageSize: "-1" is not a whole number from 1 to 1000'),
            ("pageSize=1.5", 'pageSize: "1.5" is not a whole number from 1 to 1000'),
            ("pageNum=" + "9" * 5000, "pageNum: "),
        ):
            status, answer = await stage.ask("GET", f"{path}?{query}")
            assert (status, answer["status"]) == (400, 40003)
            assert answer["message"].startswith(message)


async def test_what_is_no_upload(stage: KnowledgeStage) -> None:
    status, answer = await stage.ask("POST", FILES, json={})
    assert (status, answer["message"]) == (400, "the body should be multipart/form-data")
    form = aiohttp.FormData()
    form.add_field("other", "x", content_type="text/plain", filename="x")
    status, answer = await stage.ask("POST", FILES, data=form)
    assert (status, answer["message"]) == (400, "file: must be present")
    form = aiohttp.FormData()
    form.add_field("file", b"", filename="x.txt")
    status, answer = await stage.ask("POST", FILES, data=form)
    assert (status, answer["message"]) == (400, "file: is empty")
    form = aiohttp.FormData()
    form.add_field("file", bytes(MOST_BYTES + 1), filename="x.txt")
    status, answer = await stage.ask("POST", FILES, data=form)
    assert (status, answer["status"]) == (413, 41301)
    assert answer["message"] == f"file: the file may have {MOST_BYTES} bytes here"
    assert (await stage.ask("GET", FILES))[1]["result"]["total"] == 0
    assert not list((stage.folder / "files").glob("*")), "nothing is kept of a refused file"


@pytest.mark.long
async def test_the_301st_valid_file_is_refused(stage: KnowledgeStage) -> None:
    scope = KnowledgeScope(project="hotel", base="anna")
    file = await stage.store.add_file(scope, "first.txt", 1, "blob")
    for number in range(1, MAX_FILES):
        await stage.store.add_file(scope, f"{number}.txt", 1, "blob")
    form = aiohttp.FormData()
    form.add_field("file", b"more", filename="x.txt")
    status, answer = await stage.ask("POST", FILES, data=form)
    assert (status, answer["status"]) == (409, 40901)
    assert "300 files" in answer["message"]
    await stage.store.set_status("hotel", file.id, FileStatus.ERROR, "broken")
    assert (await stage.upload("more"))["title"] == "handbook.txt", "broken files do not count"


async def test_records_are_told_as_the_document_does(stage: KnowledgeStage) -> None:
    status, answer = await stage.ask("POST", RECORDS, json=QA)
    assert status == 200
    _is_envelope(answer, {"status", "message", "result", "timestamp"})
    record = answer["result"]
    assert {name: record[name] for name in QA} == QA
    assert CREATED.fullmatch(record["createdAt"])
    changed = {"question": "Who?", "answer": "Anna."}
    _, answer = await stage.ask("POST", f"{RECORDS}/{record['id']}", json=changed)
    assert answer["result"] == {**record, **changed}
    _, answer = await stage.ask("GET", RECORDS)
    assert answer["result"]["list"] == [{**record, **changed}]
    _, answer = await stage.ask("GET", f"{RECORDS}/{record['id']}")
    assert answer["result"] == {**record, **changed}
    _, answer = await stage.ask("DELETE", f"{RECORDS}/{record['id']}")
    _is_envelope(answer, {"status", "message", "timestamp"})
    assert (await stage.ask("DELETE", f"{RECORDS}/{record['id']}"))[0] == 404


async def test_records_that_cannot_be(stage: KnowledgeStage) -> None:
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"question": None}, "question: must be present"),
        ({"question": ""}, "question: must be present"),
        ({"question": "  "}, "question: is empty"),
        ({"question": "问" * 201}, "question: 201 characters are more than 200"),
        ({"question": 7}, "question: 7 is not a text"),
        ({"answer": None}, "answer: must be present"),
        ({"answer": "答" * 1001}, "answer: 1001 characters are more than 1000"),
    )
    record = (await stage.ask("POST", RECORDS, json=QA))[1]["result"]
    for path in (RECORDS, f"{RECORDS}/{record['id']}"):
        for change, message in changes:
            status, answer = await stage.ask("POST", path, json=QA | change)
            assert (status, answer["status"], answer["message"]) == (400, 40003, message)
    assert (await stage.ask("GET", RECORDS))[1]["result"]["list"] == [record]


async def test_the_longest_question_and_answer(stage: KnowledgeStage) -> None:
    longest = {"question": "问" * 200, "answer": "答" * 1000}
    status, answer = await stage.ask("POST", RECORDS, json=longest)
    assert status == 200
    assert answer["result"]["answer"] == longest["answer"]


async def test_a_service_is_an_agent_or_a_base_that_one_reads(stage: KnowledgeStage) -> None:
    for service in ("default", "anna", "pets"):
        status, _ = await stage.ask("GET", f"/api/open-apis/service/{service}/kn/files")
        assert status == 200, service
    status, answer = await stage.ask("GET", "/api/open-apis/service/nobody/kn/files")
    assert (status, answer["status"]) == (404, 40401)
    assert answer["message"] == (
        'serviceId: there is no agent or knowledge base "nobody" (there are: anna, default, pets)'
    )
    file = await stage.upload(TEXT)
    status, _ = await stage.ask("GET", f"/api/open-apis/service/pets/kn/files/{file['id']}")
    assert status == 404, "a file belongs to one base"


async def test_one_project_never_sees_anothers(stage: KnowledgeStage) -> None:
    file = await stage.upload(TEXT)
    _, answer = await stage.ask("POST", RECORDS, json=QA)
    for path in (f"{FILES}/{file['id']}", f"{RECORDS}/{answer['result']['id']}"):
        for method in ("GET", "DELETE"):
            assert (await stage.ask(method, path, key=OTHER_KEY))[0] == 404
    for path in (FILES, RECORDS):
        assert (await stage.ask("GET", path, key=OTHER_KEY))[1]["result"]["total"] == 0
    body = {"question": "When is breakfast served?"}
    _, answer = await stage.ask("POST", f"{SERVICE}/search", json=body, key=OTHER_KEY)
    assert answer["result"]["found"] == []
    _, answer = await stage.ask("POST", f"{SERVICE}/search", json=body)
    assert answer["result"]["found"][0]["content"].startswith("Breakfast")


async def test_without_a_key_nothing_is_told(stage: KnowledgeStage) -> None:
    for method, path in (("GET", FILES), ("POST", FILES), ("GET", RECORDS), ("POST", RECORDS)):
        status, answer = await stage.ask(method, path, key="wrong")
        assert (status, answer["status"]) == (401, 40101)


CHAT = "/api/open-apis/v1/chat/completions"


def _asks(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "anna", "messages": [{"role": "user", "content": question}], **more}


async def test_an_answer_names_its_sources_whole_and_streamed(stage: KnowledgeStage) -> None:
    stage.model.replies = [["From seven to ten [", "1", "]."]]
    file = await stage.upload(TEXT)
    question = "When is breakfast served?"
    _, answer = await stage.ask("POST", CHAT, json=_asks(question))
    [choice] = answer["choices"]
    ref = {
        "index": 1,
        "title": "handbook.txt",
        "content": "Breakfast is served from seven to ten.",
        "type": "file",
        "url": (
            f"{stage.url}/api/open-apis/projects/hotel/service/anna/kn/files/{file['id']}/download"
        ),
    }
    assert choice["refs"] == [ref]
    assert choice["message"]["content"] == "From seven to ten [1]."
    material = stage.model.requests[0].messages[0]
    assert material["role"] == "user"
    assert "> Breakfast is served" in str(material["content"])
    headers = {"Authorization": f"Bearer {KEY}"}
    body = _asks(question, stream=True)
    async with stage.session.post(stage.url + CHAT, json=body, headers=headers) as streamed:
        lines = (await streamed.text()).split("\n\n")
    chunks = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:{")]
    choices = [chunk["choices"][0] for chunk in chunks]
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert said == "From seven to ten [1]."
    with_refs = [choice for choice in choices if "refs" in choice]
    assert [choice["refs"] for choice in with_refs] == [[ref], [ref]]
    assert with_refs[-1]["finish_reason"] == "stop"
    assert with_refs[0]["finish_reason"] is None


async def test_a_question_of_the_table_is_answered_without_a_model(stage: KnowledgeStage) -> None:
    await stage.ask("POST", RECORDS, json=QA)
    _, answer = await stage.ask("POST", CHAT, json=_asks("你是谁"))
    [choice] = answer["choices"]
    assert choice["message"]["content"] == QA["answer"]
    assert choice["finish_reason"] == "stop"
    [ref] = choice["refs"]
    assert (ref["type"], ref["title"], ref["content"]) == ("qa", QA["question"], QA["answer"])
    assert not stage.model.requests
    headers = {"Authorization": f"Bearer {KEY}"}
    async with stage.session.get(ref["url"], headers=headers) as record:
        assert (await record.json())["result"]["answer"] == QA["answer"]


async def test_only_enabled_files_of_the_agents_bases_are_answered_from(
    stage: KnowledgeStage,
) -> None:
    question = "When is breakfast served?"

    async def found(service: str = "anna") -> int:
        path = f"/api/open-apis/service/{service}/kn/search"
        _, answer = await stage.ask("POST", path, json={"question": question})
        return len(answer["result"]["found"])

    file = await stage.upload("Breakfast is served at seven.", path=SERVICE.replace("anna", "pets"))
    assert [await found("anna"), await found("pets"), await found("default")] == [1, 1, 0]
    path = f"{SERVICE.replace('anna', 'pets')}/files/{file['id']}"
    await stage.ask("POST", path, json={"status": "NOT_ENABLED"})
    assert await found() == 0
    await stage.ask("POST", path, json={"status": "ENABLED"})
    assert await found() == 1
    await stage.ask("DELETE", path)
    assert await found() == 0, "a deleted file is gone at once"


async def test_an_answer_by_category(stage: KnowledgeStage) -> None:
    await stage.upload("大数据中心上云的单位有十二个。", path=SERVICE.replace("anna", "pets"))
    asked = _asks("查看大数据中心上云的单位数量。", category="pets") | {"model": "default"}
    await stage.ask("POST", CHAT, json=asked)
    assert "> 大数据中心" in str(stage.model.requests[0].messages[0]["content"])
    status, answer = await stage.ask("POST", CHAT, json=asked | {"category": "a/b"})
    assert (status, answer["error"]["param"]) == (400, "category")


@pytest.mark.long
async def test_the_documents_samples_with_host_and_key_changed(stage: KnowledgeStage) -> None:
    (stage.folder / "YOUR_DOCUMENT").write_text(TEXT)

    async def run(name: str, **changed: str) -> dict[str, Any]:
        named = {f"{{{old}}}": new for old, new in changed.items()}
        answer: dict[str, Any] = json.loads(await run_sample(stage, name, named))
        assert (answer["status"], answer["message"]) == (0, "请求成功")
        result: dict[str, Any] = answer.get("result", {})
        return result

    uploaded = await run("upload_file")
    assert uploaded["title"] == "YOUR_DOCUMENT"
    listed = await run("list_files")
    assert [item["id"] for item in listed["list"]] == [uploaded["id"]]
    assert (await run("read_file", fileId=uploaded["id"]))["content"] == TEXT
    await run("delete_file", fileId=uploaded["id"])
    record = await run("add_record")
    assert {name: record[name] for name in QA} == QA
    assert await run("change_record", qaId=record["id"]) == record
    assert (await run("list_records"))["list"] == [record]
    await run("delete_record", qaId=record["id"])
    assert (await run("list_records"))["total"] == 0
