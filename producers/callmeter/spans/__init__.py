"""OpenTelemetry's spans as calls: what their attributes mean, and who is billed. Pure.

Fed by the collector (OTLP over HTTP) and by a span processor within a program.
"""
