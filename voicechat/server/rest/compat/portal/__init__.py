"""The document of a portal: recognition, speech, pictures and videos by single
requests. Its chat and its image generation use OpenAI's paths, which are always served.
"""
