"""Sessions of the program that uses this library, offered to the captures of its user."""
