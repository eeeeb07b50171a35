"""The protocol of the xiaozhi-esp32 firmware: JSON messages and single Opus packets on
a WebSocket.

``docs/devices.md`` tells how a device is set up; ``codec`` reads and writes messages,
``dialect`` has the rules, ``speech`` says when a device is told to begin and to stop
speaking, ``device_tools`` makes tools of the model of what a device can do.
"""

from voicechat.dialects.xiaozhi.device_tools import Vision
from voicechat.dialects.xiaozhi.dialect import DeviceOptions, plain_words
from voicechat.dialects.xiaozhi.emotions import EmotionSigns
from voicechat.dialects.xiaozhi.endpoint import XiaozhiEndpoint

__all__ = ["DeviceOptions", "EmotionSigns", "Vision", "XiaozhiEndpoint", "plain_words"]
