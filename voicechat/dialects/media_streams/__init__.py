"""Telephone calls over a WebSocket, in the form of Twilio's Media Streams and similar
products: ``wire`` defines what all of them share, ``vendors`` and ``own_systems`` how
each writes it, ``call`` what a call does.
"""
