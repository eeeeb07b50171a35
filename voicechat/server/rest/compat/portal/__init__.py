"""The document of a portal: recognition, speech, pictures and videos by single
requests. Its chat and its image generation are OpenAI's paths, which are answered
anyway.
"""
