"""``make bench`` runs every benchmark; ``make bench ARGS=demo`` one of them."""

import argparse
import importlib
import platform
import sys
from pathlib import Path

import psutil


def main() -> int:
    """Run the benchmarks that are asked for; 1 when one misses its limit."""
    names = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")
    )
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}")
    chosen = parser.parse_args().names or names
    unknown = set(chosen) - set(names)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    print(
        f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"
    )
    within = [importlib.import_module(f"benchmarks.{name}").run() for name in chosen]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
