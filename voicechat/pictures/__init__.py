"""Pictures of clients: checked and decoded in a process with limits, and written
anew.
"""
