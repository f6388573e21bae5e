"""Drift as it happens: a detector that looks at every batch, and alarms by mistake as seldom as it was asked to."""
