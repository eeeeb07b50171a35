"""The promises of the kernel, under every interleaving of client, providers and clock
that Hypothesis can find.

``driver`` plays everybody around one session and obeys its effects; each promise is a
file of its own, which watches and asserts.
"""
