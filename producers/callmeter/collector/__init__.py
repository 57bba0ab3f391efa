"""The HTTP collector: envelopes in, acknowledged once the log has them (design 9)."""
