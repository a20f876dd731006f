"""The files of vhci-hcd in sysfs, in each form that kernels have given them."""

from __future__ import annotations

from pathlib import Path

HEADER = "hub port sta spd dev      sockfd local_busid\n"
#: Of Linux before 4.13: no hubs, and the kernel's pointer to the socket.
OLD_HEADER = "port sta spd dev      socket           local_busid\n"
#: Of Linux before 4.9: a free row has a column more.
OLDEST_HEADER = "prt sta spd bus dev socket           local_busid\n"
PORTS_OF_A_HUB = 8


def row(number: int, hub: str, status: int = 4, speed: int = 0, devid: int = 0, local: str = "0-0") -> str:
    """As status_show_vhci() of Linux 6.1 writes it."""
    return f"{hub}  {number:04d} {status:03d} {speed:03d} {devid:08x} {0:06d} {local}\n"


def vhci_tree(sysfs: Path, controllers: int = 1) -> Path:
    """A tree with all ports free; the folder of the first controller."""
    platform = sysfs / "devices/platform"
    for number in range(controllers):
        (platform / f"vhci_hcd.{number}").mkdir(parents=True)
    folder = platform / "vhci_hcd.0"
    for number in range(controllers):
        write_status(folder, number, {})
    (folder / "nports").write_text(f"{2 * PORTS_OF_A_HUB * controllers}\n")
    for name in ("attach", "detach"):
        (folder / name).touch(0o200)
    return folder


def write_status(folder: Path, controller: int, rows: dict[int, str]) -> None:
    """rows: of ports that are not free, by their numbers."""
    first = controller * 2 * PORTS_OF_A_HUB
    ports = [
        (first + hub * PORTS_OF_A_HUB + port, ("hs", "ss")[hub]) for hub in (0, 1) for port in range(PORTS_OF_A_HUB)
    ]
    text = HEADER + "".join(rows.get(number) or row(number, hub) for number, hub in ports)
    name = "status" if not controller else f"status.{controller}"
    (folder / f".{name}").write_text(text)
    (folder / f".{name}").rename(folder / name)  # whole, whoever reads meanwhile
