"""The life of one connection: who gets a message, what was asked, and what a loss means."""
