"""The policy engine as a service: what it knows, for operators and Prometheus."""
