"""The protocol of the xiaozhi-esp32 firmware: JSON messages and single Opus packets on
a WebSocket.

``docs/devices.md`` describes how to set up a device. ``codec`` reads and writes
messages, ``dialect`` has the rules, ``speech`` decides when a device begins and stops
speaking, ``device_tools`` makes the device's functions tools of the model.
"""

from voicechat.dialects.xiaozhi.device_tools import Vision
from voicechat.dialects.xiaozhi.dialect import DeviceOptions, plain_words
from voicechat.dialects.xiaozhi.emotions import EmotionSigns
from voicechat.dialects.xiaozhi.endpoint import XiaozhiEndpoint

__all__ = ["DeviceOptions", "EmotionSigns", "Vision", "XiaozhiEndpoint", "plain_words"]
