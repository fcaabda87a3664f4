"""Serves Envoy resources to routers by incremental xDS over one aggregated stream (delta ADS)."""
