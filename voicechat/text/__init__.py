"""Text between a chat model and a synthesiser: pieces to speak, what of them is spoken,
what was heard. Pure.
"""
