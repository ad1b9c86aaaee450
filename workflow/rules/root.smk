"""ROOT: the folder with the workflow and the scripts. The package is beside them, or (in a wheel)
around them. This also works if another workflow uses this one as a module, from a folder or a git
repository (of which Snakemake fetches only single files).
"""

import runpy
import sys
from pathlib import Path

_rules = Path(str(getattr(workflow.current_basedir, "path", "")))
if _rules.parents[1:2] and _rules.parents[1].name == "_pipeline":
    from unet.planning.root import root_of

    ROOT = root_of(workflow.current_basedir)
else:
    # This one file of the package finds all others.
    ROOT = runpy.run_path(str(workflow.source_path("../../unet/planning/root.py")))[
        "root_of"
    ](workflow.current_basedir)
    sys.path.insert(0, str(ROOT))
