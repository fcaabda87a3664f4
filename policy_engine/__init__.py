"""What a policy means: parameters in, Envoy filters (or Python hooks) out."""
