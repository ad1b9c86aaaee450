"""ROOT: the folder that holds the package and the scripts. Also where this is a module of another
workflow, from a folder or from a git repository, of which Snakemake itself fetches single files.
"""

import runpy
import sys

# One of the package's files, which tells where the others are.
ROOT = runpy.run_path(str(workflow.source_path("../../unet/planning/root.py")))[
    "root_of"
](workflow.current_basedir)
sys.path.insert(0, str(ROOT))
