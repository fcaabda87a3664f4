"""Bodies as policies read and write them: coded, in events, JSON and XML."""
