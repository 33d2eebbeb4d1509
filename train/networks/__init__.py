"""Networks that the systems share."""
