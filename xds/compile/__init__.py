"""Pure: an API in, Envoy resources out."""
