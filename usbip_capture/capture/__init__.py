"""Capturing: a tap's events through a bounded queue and one writer thread into a file, a FIFO or a stream; and back."""
