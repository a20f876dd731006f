"""Runs pyserial's own tests, from an unpacked source distribution, on a port.

python run_pyserial_suite.py FOLDER/test URL PART/PARTS [EXCLUDED...]
"""

from __future__ import annotations

import glob
import importlib
import os
import sys
import time
import unittest
from collections.abc import Iterator


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from cases(entry)
        else:
            yield entry


def main() -> int:
    folder, url, parts, *excluded = sys.argv[1:]
    part, _, of = parts.partition("/")
    os.chdir(folder)
    sys.path.insert(0, folder)
    # The short pauses of the suite are made for an idle machine.
    pause = time.sleep
    time.sleep = lambda seconds: pause(max(float(seconds), 0.25))
    chosen: list[unittest.TestCase] = []
    for name in sorted(glob.glob("test*.py")):
        module = importlib.import_module(name.removesuffix(".py"))
        module.PORT = url  # type: ignore[attr-defined]
        for case in cases(unittest.defaultTestLoader.loadTestsFromModule(module)):
            if case.id() not in excluded:
                chosen.append(case)
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(chosen[int(part) :: int(of)]))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
