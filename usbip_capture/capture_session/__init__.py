"""One capture, whoever asks for it: the plug-in, the command line, or another program."""
