"""A small process that starts the others and keeps them alive. Standard library only.

It stays resident for as long as the gateway runs, so it imports nothing that is large, and
nothing of the gateway but this package.
"""
