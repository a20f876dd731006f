"""Coverage-guided fuzzing of one target: `python -m tests.fuzz.coverage TARGET [SECONDS [SEED]]`.

Begins with the seeds and with what is kept in `corpus/TARGET`; ends with exit code 1 at the first bug, whose input
libFuzzer prints and leaves in the current folder: put it into `corpus/TARGET` and mend the bug, and it is tested from
then on. An input that takes over 10 s, or 1 GB, is a bug too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["usbip_capture"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import seeds

CORPUS = Path(__file__).parent / "corpus"
_LONGEST = 4096
_SLOWEST_SECONDS = 10
_MEMORY_MB = 1024


def main() -> None:
    name, seconds, seed = sys.argv[1], *(sys.argv[2:] or ["10"]), "1"
    with tempfile.TemporaryDirectory(prefix="usbip-fuzz-") as folder:
        for number, data in enumerate(seeds(name)):
            (Path(folder) / f"seed{number}").write_bytes(data)
        limits = [f"-timeout={_SLOWEST_SECONDS}", f"-rss_limit_mb={_MEMORY_MB}", f"-max_len={_LONGEST}"]
        kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-verbosity=0", "-print_final_stats=1", *limits]
        atheris.Setup([sys.argv[0], *options, folder, *kept], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
