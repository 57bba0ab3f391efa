"""The contract of events: envelopes, record types, topics, reasons, histograms."""
