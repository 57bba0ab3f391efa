"""Transports: how the SDK's envelopes leave the process."""
