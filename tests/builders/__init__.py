"""Input made for tests: captures, recordings, descriptors, sessions."""
