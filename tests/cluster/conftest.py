"""For tests of clusters: the rig, which is not part of the package."""

import sys
from pathlib import Path

# At the end: nothing else is to be found here first.
sys.path.append(str(Path(__file__).parents[2]))
