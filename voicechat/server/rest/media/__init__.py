"""Pictures and videos: what the documents' endpoints share, and OpenAI's own."""
