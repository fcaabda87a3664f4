"""The commands, a file for each group; each has `register(app)`."""
