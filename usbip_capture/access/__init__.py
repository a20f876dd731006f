"""Who may have which device, and when. Pure: nothing here knows a socket, a clock or a file."""
