"""USB/IP servers by name: addresses, the configuration, and which are known: configured, used before, announced."""
