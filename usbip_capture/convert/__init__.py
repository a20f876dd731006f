"""Recordings of TCP in which USB/IP goes by, read and turned into captures of USB."""
