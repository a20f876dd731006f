from collections.abc import Iterator

from pcapng.blocks import Block, SectionHeader
from pcapng.structs import ReadableStream

class FileScanner:
    stream: ReadableStream
    current_section: SectionHeader
    endianness: str
    def __init__(self, stream: ReadableStream) -> None: ...
    def __iter__(self) -> Iterator[Block]: ...
    def _read_block(self, block_type: int) -> Block: ...
