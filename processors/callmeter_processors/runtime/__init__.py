"""Runtimes: what feeds a ``Step`` and writes its checkpoints exactly once, over either log."""
