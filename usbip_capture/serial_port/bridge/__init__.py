"""A serial port for programs that know no URLs: as a pseudo-terminal, on a TCP port, by RFC 2217."""
