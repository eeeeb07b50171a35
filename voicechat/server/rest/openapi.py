"""The OpenAPI document, generated from the operations that make the routes and from the
models of requests and responses.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import voicechat
from voicechat.server.rest.operation import JSON, Body, Operation, Parameter

Tree: TypeAlias = dict[str, Any]

_EVENTS = "text/event-stream"
_REASONS = {
    400: "Malformed, or a parameter that is not allowed: the message begins with its path",
    401: "No valid key, or one that does not open this",
    404: "No such model, service or task",
    408: "The body did not come in time",
    409: "The Idempotency-Key was used for another request, or the task has just been deleted",
    413: "The body is too large",
    415: "An audio format that is not offered, or a recording that cannot be decoded",
    429: "A quota is used up",
    500: "An error of the server",
    502: "The chat model, the synthesiser or the recogniser failed",
    503: "The server is at capacity, starts, or stops",
}
_HEADERS: dict[int, Tree] = {
    401: {
        "WWW-Authenticate": {
            "schema": {"type": "string"},
            "description": "Whether the key is not valid (`invalid_token`) or opens too little "
            "(`insufficient_scope`)",
        }
    },
    429: {
        "Retry-After": {
            "schema": {"type": "integer", "minimum": 1},
            "description": "Seconds to wait",
        }
    },
}
TAGS: Mapping[str, str] = {
    "sophnet": "Pictures, videos and OCR of SophNet. SophNet 的文生图、视频生成与图片 OCR。",
    "platforms": "Chat, pictures and videos of a platform, which is a group of services. "
    "全平台接口：对话、图片、视频。",
    "portal": "Recognition, speech, pictures and videos by single requests; its chat and its "
    "picture generation are `/v1/chat/completions` and `/v1/images/generations`. "
    "问答、语音识别、文字转语音、看图说话、图像增强、视频生成。",
    "relay": "A relay to OpenAI, with conversations that the server keeps by their `chatcode`. "
    "OpenAI 中转接口；`chatcode` 关联上下文。",
    "spark": "An application on iFLYTEK's Spark: chat, recognition, text in pictures, accounts. "
    "讯飞星火应用：文本模型、语音识别、图片识别文字、注册与登录。",
}
"""What the tags of other systems' documents are."""
_PARAMETER = re.compile(r"{(\w+)}")


def build_document(operations: Iterable[Operation]) -> Tree:
    """Build the OpenAPI 3.1 document as a JSON object."""
    operations = list(operations)
    definitions = _definitions(operations)
    paths: Tree = {}
    for operation in operations:
        for number, path in enumerate(operation.all_paths):
            paths.setdefault(path, {})[operation.method.lower()] = _describe(
                operation, path, alias=number > 0
            )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "voicechat",
            "version": voicechat.__version__,
            "description": "The HTTP side of a realtime voice-conversation engine. The sockets "
            "are in asyncapi.json.",
        },
        "security": [{"key": []}],
        "tags": [
            {"name": tag, "description": described}
            for tag, described in TAGS.items()
            if any(operation.tag == tag for operation in operations)
        ],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, or a short-lived token.",
                }
            },
        },
    }


def _definitions(operations: list[Operation]) -> Tree:
    """Return the schemas of all models: of requests in validation mode, of responses in
    serialization mode.
    """
    asked = {body.model for operation in operations for body in operation.bodies if body.model}
    answered: set[type[BaseModel]] = {operation.error_model for operation in operations}
    for operation in operations:
        answered |= {
            body.model for bodies in operation.answers.values() for body in bodies if body.model
        }
    modes = [(model, "validation") for model in asked] + [
        (model, "serialization") for model in answered
    ]
    ordered = sorted(modes, key=lambda pair: pair[0].__name__)
    _, schema = models_json_schema(ordered, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    definitions: Tree = schema["$defs"]
    return dict(sorted(definitions.items()))


def _describe(operation: Operation, path: str, *, alias: bool) -> Tree:
    described: Tree = {
        "operationId": _operation_id(operation.method, path),
        "tags": [operation.tag],
        "summary": operation.summary + (f" (alias of {operation.paths[0]})" if alias else ""),
        "responses": _responses(operation),
    }
    if operation.details:
        described["description"] = operation.details
    if not operation.needs_key:
        described["security"] = []
    parameters = [*map(_in_path, _PARAMETER.findall(path)), *map(_optional, operation.parameters)]
    if parameters:
        described["parameters"] = parameters
    if operation.bodies:
        described["requestBody"] = {"required": True, "content": _content(operation.bodies)}
    return described


def _in_path(name: str) -> Tree:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }


def _optional(parameter: Parameter) -> Tree:
    described: Tree = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
    }
    return described | {"schema": dict(parameter.schema)}


def _responses(operation: Operation) -> Tree:
    responses: Tree = {
        str(status): {"description": "Granted", "content": _content(bodies)}
        for status, bodies in operation.answers.items()
    }
    for status in operation.errors:
        answer: Tree = {
            "description": _REASONS[status],
            "content": {JSON: {"schema": _reference(operation.error_model)}},
        }
        if status in _HEADERS:
            answer["headers"] = _HEADERS[status]
        responses[str(status)] = answer
    return responses


def _content(bodies: tuple[Body, ...]) -> Tree:
    """One entry per media type; bytes have no schema (OpenAPI 3.1.0, "Considerations
    for File Uploads").

    For an event stream, the schema of one event is given, as in OpenAPI 3.2's
    ``itemSchema``.
    """
    content: Tree = {}
    for content_type in dict.fromkeys(body.content_type for body in bodies):
        models = [body.model for body in bodies if body.content_type == content_type and body.model]
        references = [_reference(model) for model in models]
        content[content_type] = {"schema": _any_of(references)} if references else {}
    events = [
        _reference(body.model) for body in bodies if body.content_type == _EVENTS and body.model
    ]
    if events:
        data = {"type": "string", "contentMediaType": JSON, "contentSchema": _any_of(events)}
        content[_EVENTS] = {
            "schema": {"type": "object", "required": ["data"], "properties": {"data": data}}
        }
    return content


def _any_of(schemas: list[Tree]) -> Tree:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _reference(model: type[BaseModel]) -> Tree:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _operation_id(method: str, path: str) -> str:
    return "_".join([method.lower(), *re.findall(r"[A-Za-z0-9]+", path)])
