"""USB/IP servers that are known: configured, used before, or announced on the network."""
