"""The HTTP endpoints for devices: their configuration, and questions about their
photos.
"""
