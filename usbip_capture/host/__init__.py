"""The host's side of a device: configurations, claims, transfers, and importing again after a loss."""
