"""Puts the plug-in where Wireshark finds it, and looks for what may be wrong with that."""
