"""The crash-durable spool: envelopes on disk until a backend has acknowledged them.

``disk.DiskSpool`` is what the outbox uses. Under it: ``frames`` (one envelope's bytes on disk),
``segment`` (an append-only file of frames), ``shelf`` (one source's directory and its lock),
``syncer`` (the disk's own thread).
"""
