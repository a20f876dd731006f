"""The configuration file, changed: one value or one item of a list at a time, all else in it stays as it is."""
