"""OpenAI's Realtime protocol, in the version that OpenAI calls GA."""
