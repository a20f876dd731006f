"""Captures of any program: pcap and pcapng, gzip'ed or not, read as packets."""
