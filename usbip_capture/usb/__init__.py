"""USB itself, pure: setup packets, descriptors, endpoints, URBs and their status."""
