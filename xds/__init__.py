"""Compiles APIs to Envoy resources and serves them over delta ADS."""
