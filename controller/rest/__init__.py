"""The management and admin APIs over HTTP."""
