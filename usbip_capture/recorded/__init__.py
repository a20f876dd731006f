"""What a capture tells of each device in it: its descriptors, and what was said to it and answered. Pure."""
