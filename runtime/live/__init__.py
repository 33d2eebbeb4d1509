"""Live streams: cameras, network streams and files that are derained as they come, several at once."""
