"""ClickHouse: the stores, their schema and what keeps them sound."""
