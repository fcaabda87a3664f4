"""Limits that routers share: Envoy's rate limit service over counters in Redis or Valkey."""
