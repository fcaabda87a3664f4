"""What parameters of policies may hold: headers, paths, patterns, addresses."""
