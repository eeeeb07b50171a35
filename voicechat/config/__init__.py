"""The configuration: the sections of its file, the loader, and the services it
describes.
"""

from voicechat.config.endpoints import endpoints_of
from voicechat.config.loader import load_config
from voicechat.config.sections import (
    ApologyConfig,
    Config,
    HandsFreeConfig,
    ServiceConfig,
    ServiceKind,
    TranscriptionConfig,
)
from voicechat.config.server_sections import (
    AdmissionConfig,
    CompatConfig,
    PhoneConfig,
    ServerConfig,
)
from voicechat.config.services import (
    build_services,
    configured_drawing,
    configured_server,
    configured_tool,
    fallback_orders,
    open_service,
)
from voicechat.config.tool_sections import ToolConfig

__all__ = [
    "AdmissionConfig",
    "ApologyConfig",
    "CompatConfig",
    "Config",
    "HandsFreeConfig",
    "PhoneConfig",
    "ServerConfig",
    "ServiceConfig",
    "ServiceKind",
    "ToolConfig",
    "TranscriptionConfig",
    "build_services",
    "configured_drawing",
    "configured_server",
    "configured_tool",
    "endpoints_of",
    "fallback_orders",
    "load_config",
    "open_service",
]
