"""Simulated serial adapters, and what may be at the other end of their wires."""
