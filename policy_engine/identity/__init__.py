"""Who calls: whose tokens can be trusted, what they claim, and how it is passed on."""
