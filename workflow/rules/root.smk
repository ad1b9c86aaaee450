"""ROOT: the folder with the package and the scripts. This also works if another workflow uses this
one as a module, from a folder or a git repository (of which Snakemake fetches only single files).
"""

import runpy
import sys

# This one file of the package finds all others.
ROOT = runpy.run_path(str(workflow.source_path("../../unet/planning/root.py")))[
    "root_of"
](workflow.current_basedir)
sys.path.insert(0, str(ROOT))
