"""Access log in, usage events and reports out."""
