"""The OpenAPI document: the same as the router, as the committed copy, and as what the
models check.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from tests.rest.live import Live, serving_live
from tools.write_openapi import COMMITTED, all_operations
from voicechat.dialects.openai_realtime.endpoint import PATHS
from voicechat.errors import RemoteProtocolError
from voicechat.schema.chat_options import ChatMessage, ResponseFormat, Thinking
from voicechat.schema.chat_tools import ChatCompletionTool
from voicechat.schema.checked import STANDS_FOR_DEFAULT
from voicechat.server.app import build_app
from voicechat.server.health import Health
from voicechat.server.metrics import Metrics
from voicechat.server.pages import Pages, demo_folder
from voicechat.server.rest.chat import CompletionRequest
from voicechat.server.rest.openai_speech import OpenAISpeechRequest
from voicechat.server.rest.operation import Operation
from voicechat.server.rest.routes import document_of, rest_routes
from voicechat.server.rest.tokens import TokenRequest
from voicechat.server.rest.transcription_schemas import OpenAITranscriptionRequest, RecognitionParam
from voicechat.server.rest.voice import SynthesisParam


@pytest.fixture
async def operations() -> list[Operation]:
    return await all_operations()


def test_the_committed_copy_is_the_document(operations: list[Operation]) -> None:
    """Write it anew with ``python -m tools.write_openapi`` after a change that is
    meant.
    """
    assert json.loads(COMMITTED.read_text("utf-8")) == document_of(operations)


def test_the_router_and_the_document_name_the_same_endpoints(operations: list[Operation]) -> None:
    app = build_app([*rest_routes(operations), *Health().routes(), *Metrics().routes()])
    routed = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    document = document_of(operations)
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert described == routed


@pytest.mark.real_time
async def test_whatever_a_server_answers_is_in_a_document(live: Live) -> None:
    """Asked of a whole server, so that no route can be made beside the documents:
    HTTP's, the sockets', the demo's.
    """
    http = json.loads(COMMITTED.read_text("utf-8"))["paths"]
    channels = json.loads(COMMITTED.with_name("asyncapi.json").read_text("utf-8"))[
        "channels"
    ].values()
    sockets = {channel["address"].replace("{projectId}", "{project}") for channel in channels}
    aliases = {
        path.replace("/projects/{project}", short)
        for path in sockets
        for short in ("", "/projects")
    }
    demo = {route.path for route in Pages(demo_folder()).routes()}
    root = COMMITTED.parents[1]
    pages = [*root.glob("protocol/*/README.md"), *root.glob("docs/*.md")]
    prose = "".join(page.read_text("utf-8") for page in pages)
    routed = {
        route.resource.canonical
        for route in live.running.app.router.routes()
        if route.resource is not None
    }
    described = set(http) | sockets | aliases | demo
    assert described <= routed
    # Other protocols are described in prose.
    folders = {"/".join(path.split("/")[:2]) for path in routed - described - {PATHS[1]}}
    assert {folder for folder in folders if folder not in prose} == set()


def test_the_document_is_openapi_whose_references_lead_somewhere(
    operations: list[Operation],
) -> None:
    document = document_of(operations)
    assert document["openapi"].startswith("3.1.")
    schemas = document["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document))) == set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    ids = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(ids)) == len(ids)
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert ("security" in operation) == (operation["tags"] == ["server"])


TRIED = [
    (
        CompletionRequest,
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "logprobs": True},
        9,
    ),
    (SynthesisParam, {}, 3),
    (OpenAISpeechRequest, {"model": "m", "input": "x"}, 4),
    (TokenRequest, {}, 2),
    (ChatMessage, {"role": "user", "content": "x"}, 1),
    (ChatCompletionTool, {"type": "function", "function": {"name": "f"}}, 1),
    (ResponseFormat, {"type": "text"}, 1),
    (Thinking, {"type": "enabled"}, 1),
    (RecognitionParam, {}, 1),
    (OpenAITranscriptionRequest, {"model": "m"}, 2),
]


@pytest.mark.parametrize(("model", "whole", "fields"), TRIED)
def test_the_bounds_that_the_document_names_are_those_that_are_checked(
    model: type[BaseModel], whole: dict[str, object], fields: int
) -> None:
    schemas = json.loads(COMMITTED.read_text("utf-8"))["components"]["schemas"]
    properties = (schemas.get(model.__name__) or model.model_json_schema())["properties"]

    def accepts(field: str, value: object) -> bool:
        try:
            model.model_validate(whole | {field: value})
        except (ValidationError, RemoteProtocolError):
            return False
        return True

    tried = set()
    for field, about in properties.items():
        for option in about.get("anyOf", [about]):
            if option == STANDS_FOR_DEFAULT:
                assert accepts(field, None), field
                assert accepts(field, ""), field
                continue
            step = 1 if option.get("type") == "integer" else 0.01
            for bound, outside in (("minimum", -step), ("maximum", step)):
                if bound in option:
                    tried.add(field)
                    assert accepts(field, option[bound]), (field, bound)
                    assert not accepts(field, option[bound] + outside), (field, bound)
            for value in option.get("enum", [option["const"]] if "const" in option else []):
                tried.add(field)
                assert accepts(field, value), (field, value)
                assert not accepts(field, f"{value}x"), (field, value)
            if "maxLength" in option:
                tried.add(field)
                assert accepts(field, "x" * option["maxLength"])
                assert not accepts(field, "x" * (option["maxLength"] + 1))
    assert len(tried) == fields, tried


def test_null_and_nothing_stand_for_the_default_only_where_there_is_one() -> None:
    schema = CompletionRequest.model_json_schema()
    assert schema["properties"]["model"]["minLength"] == 1
    assert schema["properties"]["temperature"]["anyOf"][-1] == STANDS_FOR_DEFAULT
    assert "anyOf" not in schema["properties"]["messages"]
    for value in (None, ""):
        given = CompletionRequest.model_validate(
            {"model": "m", "messages": [{"role": "user", "content": "x"}], "top_p": value}
        )
        assert given.given() == {}
        with pytest.raises(ValidationError):
            CompletionRequest.model_validate(
                {"model": value, "messages": [{"role": "user", "content": "x"}]}
            )


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with serving_live(tmp_path) as server:
        yield server


@pytest.mark.real_time
async def test_the_documents_are_served_without_a_key(live: Live) -> None:
    document = await live.ask("/openapi.json", method="GET", key="")
    assert (document.status, document.content_type) == (200, "application/json")
    assert document.json == json.loads(COMMITTED.read_text("utf-8"))

    page = await live.ask("/docs", method="GET", key="")
    assert (page.status, page.content_type) == (200, "text/html; charset=utf-8")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy


@pytest.mark.real_time
async def test_what_the_endpoints_answer_fits_the_document(live: Live) -> None:
    schemas: Any = json.loads(COMMITTED.read_text("utf-8"))["components"]["schemas"]

    def fits(value: object, name: str) -> None:
        root = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
        jsonschema.Draft202012Validator(root).validate(value)

    chat = {"model": "default", "messages": [{"role": "user", "content": "x"}]}
    fits((await live.ask("/v1/chat/completions", chat)).json, "ChatCompletionAnswer")
    streamed = await live.ask("/v1/chat/completions", chat | {"stream": True})
    for event in streamed.events[:-1]:
        fits(json.loads(event), "ChatCompletionChunk")
    fits((await live.ask("/v1/chat/completions", {})).json, "OpenAIError")
    fits((await live.ask("/v1/models", method="GET")).json, "ModelList")
    fits((await live.ask("/api/open-apis/projects/p/tokens", {})).json, "TokenAnswer")
    voice = "/api/open-apis/projects/p/easyllms/voice/synthesize-audio-stream"
    for event in (
        await live.ask(voice, {"easyllm_id": "default", "text": ["hi"], "synthesis_param": {}})
    ).events:
        fits(json.loads(event), "SpeechEvent")
    spoken = await live.ask(
        "/api/open-apis/v1/chat/completions-with-voice-output",
        {"chat_completion_req": chat, "speech_synthesis_req": {"easyllm_id": "default"}},
    )
    for event in map(json.loads, spoken.events):
        fits(event, "ChatCompletionChunk" if "choices" in event else "SpeechEvent")
    fits((await live.ask(voice, {})).json, "ContractError")
    fits((await live.ask("/healthz", method="GET")).json, "PhaseAnswer")
