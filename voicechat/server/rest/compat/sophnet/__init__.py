"""SophNet's document: text to image, the video generator, OCR. Its chat, speech and
recognition are always served.
"""
