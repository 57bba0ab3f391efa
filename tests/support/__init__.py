"""What tests share: the real Kafka, the acceptance record, the list of what was skipped."""
