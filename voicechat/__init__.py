"""A realtime voice-conversation engine: WebSocket in, recognition, language model,
speech, WebSocket out.
"""

__version__ = "0.1.0"
