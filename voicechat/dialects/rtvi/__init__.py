"""RTVI, the protocol of Pipecat's client SDKs."""
