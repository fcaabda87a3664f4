"""Limits and quotas that routers share."""
