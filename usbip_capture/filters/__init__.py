"""The capture filter: which URBs are written. The same language for the plug-in, the programs and the library."""
