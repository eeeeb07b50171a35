"""What devices ask for over HTTP: their configuration, and someone to look at their
photos.
"""
