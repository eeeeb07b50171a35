"""The option whether a model thinks before it answers. Servers have four forms of it
with the same meaning. No I/O.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

ThinkingForm: TypeAlias = Literal[
    "chat_template_kwargs", "enable_thinking", "thinking", "reasoning_effort"
]
"""The form that a server supports.

``chat_template_kwargs``: ``{"enable_thinking": true}`` for the model's template (vLLM,
SGLang, llama.cpp). ``enable_thinking``: true or false (DashScope, SiliconFlow).
``thinking``: ``{"type": "enabled"}`` (GLM, Doubao, DeepSeek). ``reasoning_effort``:
``none`` or ``medium`` (OpenAI, Ollama); an effort that the client set is kept.
"""


def in_form(form: ThinkingForm, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options with the client's choice in ``form`` only.

    Options without a choice are unchanged. If the client sent several that differ,
    ``enable_thinking`` takes precedence over ``thinking``, and that over
    ``chat_template_kwargs``.
    """
    wish = wished(options)
    if wish is None:
        return dict(options)
    others = {
        name: value
        for name, value in options.items()
        if name not in ("enable_thinking", "thinking")
    }
    template = _without_wish(_mapping(others.pop("chat_template_kwargs", None)))
    match form:
        case "chat_template_kwargs":
            template["enable_thinking"] = wish
        case "enable_thinking":
            others["enable_thinking"] = wish
        case "thinking":
            others["thinking"] = {
                **_mapping(options.get("thinking")),
                "type": "enabled" if wish else "disabled",
            }
        case "reasoning_effort":
            others.setdefault("reasoning_effort", "medium" if wish else "none")
    if template:
        others["chat_template_kwargs"] = template
    return others


def wished(options: Mapping[str, object]) -> bool | None:
    """Return whether the model should think; None if the options do not say."""
    if isinstance(wish := options.get("enable_thinking"), bool):
        return wish
    kind = _mapping(options.get("thinking")).get("type")
    if kind in ("enabled", "disabled"):
        return kind == "enabled"
    wish = _mapping(options.get("chat_template_kwargs")).get("enable_thinking")
    return wish if isinstance(wish, bool) else None


def _without_wish(template: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in template.items() if name != "enable_thinking"}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
