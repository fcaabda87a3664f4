"""The management REST API, the record in SQL, and the outbox."""
