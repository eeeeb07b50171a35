"""Pictures and videos: the parts that the documents' endpoints share, and OpenAI's
endpoints.
"""
