"""ASGI applications on ports, inside a loop that somebody else owns."""
