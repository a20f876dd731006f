"""The front that Wireshark runs: answers to its queries, and the capture process."""
