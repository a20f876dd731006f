from io import BytesIO

from pcapng.blocks import Block, SectionHeader

class FileWriter:
    interfaces: set[int]
    def __init__(self, stream: BytesIO, shb: SectionHeader) -> None: ...
    def write_block(self, blk: Block) -> None: ...
