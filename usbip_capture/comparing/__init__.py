"""Two captures of the same session: what was asked is aligned, and where they differ is found. Pure."""
