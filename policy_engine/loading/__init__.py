"""Policies of the operator's own: files that are watched, tried and imported."""
