"""The document of a relay to OpenAI: chat whose history the server keeps, completions,
edits and pictures, whole, as JSON lines and as events.
"""
