"""ROOT: the folder that holds the package and the scripts. It is also right if this is a module of
another workflow, from a folder or from a git repository (Snakemake fetches only single files of it).
"""

import runpy
import sys

# One file of the package, which finds the others.
ROOT = runpy.run_path(str(workflow.source_path("../../unet/planning/root.py")))[
    "root_of"
](workflow.current_basedir)
sys.path.insert(0, str(ROOT))
