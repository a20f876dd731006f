"""What is not ours and decides what is right."""
