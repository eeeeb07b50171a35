"""OpenAI's Realtime protocol, in the form that its maker calls GA."""
