"""Conditions of policies: understood, translated for Envoy, evaluated in Python."""
