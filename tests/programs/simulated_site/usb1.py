"""In place of the module `usb1` in programs that a test starts: a machine whose devices the test plugs in and out."""

import sys

from tests.programs.simulated_machine import module

sys.modules[__name__] = module()  # type: ignore[assignment]
