"""labgrid's coordinator, asked which places and devices it has; labgrid itself is imported in a process of its own."""
