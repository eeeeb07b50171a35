"""What requests hold: models with checked fields, JSON read within bounds. Shared by
dialects and REST.
"""
