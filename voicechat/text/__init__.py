"""Text between a chat model and a synthesiser: cutting it into pieces, what is spoken
of them, what was heard. No I/O.
"""
