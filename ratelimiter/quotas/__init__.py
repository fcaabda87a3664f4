"""Shares of limits for routers that count by themselves: Envoy's quota service (RLQS)."""
