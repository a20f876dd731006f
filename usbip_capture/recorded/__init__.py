"""What a capture knows of each device in it: its descriptors, what was asked of it and how it answered. Pure."""
