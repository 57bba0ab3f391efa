"""Guards that stop calls before they are made; ``guard`` is where to begin.

limits of a process ─► local ──┐
status of the fleet ─► shared ─┴─► books ─► admission ─► guard, and ``wrap`` around a model
"""
