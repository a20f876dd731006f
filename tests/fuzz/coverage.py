"""Coverage-guided fuzzing of one target: `python -m tests.fuzz.coverage TARGET [SECONDS [SEED]]`.

Begins with the seeds and with what is kept in `corpus/TARGET`; ends with exit code 1 at the first bug, whose input
libFuzzer prints and leaves in the current folder: put it into `corpus/TARGET` and mend the bug, and it is tested from
then on. An input that takes over 10 s, or 1 GB, is a bug too.

Without arguments it reads lines `TARGET SECONDS LOG`, fuzzes each in a process that it forks, and answers with that
one's exit code: to instrument what is imported takes longer than a short fuzzing, and is done once.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["usbip_capture"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import seeds

CORPUS = Path(__file__).parent / "corpus"
_LONGEST = 4096
_SLOWEST_SECONDS = 10
_MEMORY_MB = 1024


def main() -> None:
    if sys.argv[1:]:
        name, seconds, seed = *sys.argv[1:], *("10", "1")[len(sys.argv) - 2 :]
        fuzz(name, seconds, seed)
    for line in sys.stdin:
        fork(*line.split())


def fork(name: str, seconds: str, log: str) -> None:
    """Fuzz in a process of its own, and print its exit code; what it prints goes to the file `log`."""
    process = os.fork()
    if process == 0:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(output, number)
        fuzz(name, seconds, "1")
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def fuzz(name: str, seconds: str, seed: str) -> NoReturn:
    """Fuzz one target; ends the process."""
    with tempfile.TemporaryDirectory(prefix="usbip-fuzz-") as folder:
        for number, data in enumerate(seeds(name)):
            (Path(folder) / f"seed{number}").write_bytes(data)
        limits = [f"-timeout={_SLOWEST_SECONDS}", f"-rss_limit_mb={_MEMORY_MB}", f"-max_len={_LONGEST}"]
        kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-verbosity=0", "-print_final_stats=1", *limits]
        atheris.Setup([sys.argv[0], *options, folder, *kept], TARGETS[name])
        atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


if __name__ == "__main__":
    main()
