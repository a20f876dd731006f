"""What is not ours and says what is right."""
