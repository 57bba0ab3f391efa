"""Replay: a file of calls or of envelopes becomes envelopes again, the same ones every time."""
