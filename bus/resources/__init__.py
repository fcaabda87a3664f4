"""The resources users apply, in the public wire format."""
