# What this project uses of python-pcapng 2.1, typed.
from pcapng.scanner import FileScanner as FileScanner
from pcapng.writer import FileWriter as FileWriter
