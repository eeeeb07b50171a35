"""Containers and framings of compressed audio, taken apart as they arrive: bytes in any
cut, whole packets out.

Pure Python, without libraries in C: what comes from outside is bounded and checked
here, and a codec is given whole packets only. How the bytes are cut never changes the
packets.
"""
