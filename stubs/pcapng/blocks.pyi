from collections.abc import Mapping
from typing import Any, TypeVar

from pcapng.structs import Options, StructField

B = TypeVar("B", bound=SectionMemberBlock)

class Block:
    schema: list[tuple[str, StructField, Any]]
    magic_number: int

class SectionMemberBlock(Block):
    section: SectionHeader

class SectionHeader(Block):
    endianness: str
    interfaces: dict[int, InterfaceDescription]
    options: Options
    def __init__(self, endianness: str = ..., *, options: Mapping[str, object] = ...) -> None: ...
    def new_member(self, cls: type[B], **fields: object) -> B: ...

class InterfaceDescription(SectionMemberBlock):
    interface_id: int
    link_type: int
    snaplen: int
    options: Options

class EnhancedPacket(SectionMemberBlock):
    interface_id: int
    timestamp_high: int
    timestamp_low: int
    packet_len: int
    packet_data: bytes
    options: Options

class InterfaceStatistics(SectionMemberBlock):
    interface_id: int
    timestamp_high: int
    timestamp_low: int
    options: Options
