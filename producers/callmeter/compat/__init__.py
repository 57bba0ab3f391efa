"""Facades: the names that users of other systems know, thin over callmeter's own meter."""
