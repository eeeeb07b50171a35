"""The document of "all platforms": chat, pictures and videos of groups of services."""
