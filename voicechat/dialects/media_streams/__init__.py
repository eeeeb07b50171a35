"""Telephone calls over a WebSocket, as Twilio's Media Streams and their relatives carry
them: ``wire`` says what all of them have, ``vendors`` and ``own_systems`` how each
writes it, ``call`` what a call does.
"""
