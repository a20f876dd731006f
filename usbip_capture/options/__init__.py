"""Each user option, declared once."""
