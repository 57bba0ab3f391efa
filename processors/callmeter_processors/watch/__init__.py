"""The watch: budgets, objectives and running windows, folded from ``spend`` (design 7)."""
