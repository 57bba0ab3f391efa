"""Delivers alerts to people and programs: webhook, Slack, email; at least once, named by id."""
