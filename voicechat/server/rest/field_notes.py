"""What the OpenAPI document says of request fields besides their types.

The bounds stand here in JSON Schema's words, because the checks themselves are functions that no schema can be made
from; a test tries each bound on the model.
"""

from typing import Any

_COMPLETION: dict[str, dict[str, Any]] = {
    "messages": {"description": "The conversation so far; content may be text or an array of parts.", "minItems": 1},
    "model": {"description": "A configured chat model.", "minLength": 1},
    "stream": {"description": "Whether the reply is sent while it is written."},
    "temperature": {"description": "Higher is more random.", "minimum": 0, "maximum": 2},
    "top_p": {"description": "Share of the likeliest tokens that are drawn from.", "minimum": 0, "maximum": 1},
    "max_tokens": {"description": "Longest reply, in tokens.", "minimum": 1},
    "max_completion_tokens": {"description": "OpenAI's newer name of `max_tokens`.", "minimum": 1},
    "stop": {
        "description": "Up to four texts that end the reply.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 4}, {"type": "null"}],
    },
    "presence_penalty": {"description": "Against any repetition.", "minimum": -2, "maximum": 2},
    "frequency_penalty": {"description": "Against frequent repetition.", "minimum": -2, "maximum": 2},
    "logprobs": {"description": "Passed to the model; the answer has no log probabilities."},
    "top_logprobs": {"description": "Only with `logprobs`.", "minimum": 0, "maximum": 20},
    "n": {"description": "Only one reply is made.", "const": 1},
    "tools": {"description": "Functions that the model may call."},
    "response_format": {"description": "The form of the reply."},
    "enable_thinking": {"description": "Whether the model thinks before it answers."},
    "thinking": {"description": "The same in GLM's form."},
    "chat_template_kwargs": {"description": "The same as an argument of the chat template."},
}

NOTES: dict[str, dict[str, dict[str, Any]]] = {
    "CompletionRequest": _COMPLETION,
    "SpokenCompletion": _COMPLETION | {"stream": {"description": "Always streamed.", "const": True}},
    "ChatMessage": {
        "role": {"description": "Who speaks.", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {
            "description": "A text, an array of parts such as text and image_url, or null.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
                },
                {"type": "null"},
            ],
        },
    },
    "Tool": {"type": {"description": "Only functions exist.", "const": "function"}},
    "ResponseFormat": {"type": {"description": "Its kind.", "enum": ["text", "json_object", "json_schema"]}},
    "Thinking": {"type": {"description": "Whether it thinks.", "enum": ["enabled", "disabled"]}},
    "SpeechRequest": {
        "easyllm_id": {"description": "A configured speech service.", "minLength": 1},
        "text": {"description": "What to say, 20 000 characters in all at most.", "minItems": 1},
    },
    "SpeechPart": {
        "easyllm_id": {"description": "A configured speech service.", "minLength": 1},
        "stream": {"description": "Always streamed.", "const": True},
    },
    "SynthesisParam": {
        "model": {"description": "The service's model; passed through."},
        "voice": {"description": "One of the service's voices; another one is replaced by its first."},
        "format": {"description": "Such as MP3_16000HZ_MONO_128KBPS, WAV_16000HZ_MONO_16BIT, PCM_16000HZ_MONO_16BIT."},
        "volume": {"description": "Loudness.", "minimum": 0, "maximum": 100},
        "speechRate": {"description": "Speed.", "minimum": 0.5, "maximum": 2},
        "pitchRate": {"description": "Pitch.", "minimum": 0.5, "maximum": 2},
    },
    "OpenAISpeechRequest": {
        "model": {"description": "A configured speech service, or one of OpenAI's names.", "minLength": 1},
        "input": {"description": "What to say.", "minLength": 1, "maxLength": 4096},
        "voice": {"description": "One of the service's voices; another one is replaced by its first."},
        "response_format": {"description": "pcm is 24 kHz.", "enum": ["mp3", "opus", "wav", "pcm"]},
        "speed": {"description": "Times the usual speed.", "minimum": 0.5, "maximum": 2},
        "stream_format": {"description": "Only audio.", "const": "audio"},
    },
    "TokenRequest": {
        "endpoints": {
            "description": "What the token opens; empty: all that its key opens.",
            "items": {"enum": ["conversation", "recognition", "chat", "speech", "transcription"]},
        },
        "origin": {"description": "The web origin that must send it, such as https://app.example."},
        "expires_in": {"description": "Seconds.", "minimum": 1, "maximum": 600},
    },
}
