"""What guardrails have in common: texts looked at, whole or while they stream."""
