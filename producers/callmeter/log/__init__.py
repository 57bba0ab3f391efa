"""The log: one (topic, partition, offset) model over a SQLite file or Apache Kafka."""
