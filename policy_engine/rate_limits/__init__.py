"""Limits as Envoy's filters: whom they count, what a request costs, who keeps the count."""
