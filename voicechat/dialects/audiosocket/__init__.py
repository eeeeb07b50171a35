"""Asterisk's AudioSocket: a telephone call over plain TCP. ``frames`` defines its
frames, ``call`` what a call does, ``endpoint`` who may call.

Sources: ``include/asterisk/res_audiosocket.h``, ``apps/app_audiosocket.c`` and
``channels/chan_audiosocket.c`` of Asterisk.
"""

from voicechat.dialects.audiosocket.endpoint import AudioSocketEndpoint, open_endpoint

__all__ = ["AudioSocketEndpoint", "open_endpoint"]
