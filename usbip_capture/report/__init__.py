"""What is in a capture, told to people: captures of any program are read, counted, and shown as text and as a page."""
