"""What is in a capture, for people: captures of any program are read, counted, and shown as text and as a page."""
