"""Tries a server and one of its devices: what they do right, what they do in their own way, what they do wrong."""
