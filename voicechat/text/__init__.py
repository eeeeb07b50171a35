"""The text between a chat model and a synthesiser: cutting it into pieces, choosing the
words to speak, estimating what was heard. No I/O.
"""
