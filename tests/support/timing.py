"""The one constant that all time-outs of the tests are multiples of.

It is measured once a run, by the process that begins it, and grows with what else the machine has
to do; the workers that this one starts have it from the environment.
"""

import os
import time

VARIABLE = "TESTS_UNIT_SECONDS"
"""Where it is handed on. Set it to have another."""

STEPS, USUAL = 4_000_000, 0.3
"""So many steps take that long, in seconds, on a core of 2020 that has nothing else to do."""
MOST = 30.0


def measured() -> float:
    """How long a second may be here: at least one, however fast the machine is."""
    began = time.perf_counter()
    number = 0
    for step in range(STEPS):
        number = (number * 31 + step) % 1_000_003
    return min(max(1.0, (time.perf_counter() - began) / USUAL), MOST)


if VARIABLE not in os.environ:
    os.environ[VARIABLE] = f"{measured():.2f}"
UNIT = float(os.environ[VARIABLE])
"""Seconds; what is quick takes far less, and only a broken test waits for it."""
