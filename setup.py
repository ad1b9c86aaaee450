"""The wheel carries the workflow inside the package; all else is in pyproject.toml.

In a clone, workflow/, scripts/ and config/ lie beside the package: Snakemake, snakedeploy and other
workflows look for them there. An editable install uses them where they are.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# As unet.planning.root.INSIDE.
INSIDE = Path("unet", "_pipeline")
FOLDERS = ("workflow", "scripts")
FILES = ("config/config.yaml",)


class BuildWithWorkflow(build_py):
    """Copies the workflow, too."""

    def _copied(self) -> dict[Path, Path]:
        """A file in the wheel -> its source."""
        files = [Path(name) for name in FILES]
        for folder in FOLDERS:
            files += [
                path
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file() and path.suffix != ".pyc"
            ]
        return {Path(self.build_lib, INSIDE, path): path for path in files}

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for target, source in self._copied().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)  # with its mode: some are scripts

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copied = [] if self.editable_mode else [str(path) for path in self._copied()]
        return super().get_outputs(include_bytecode) + copied


setup(cmdclass={"build_py": BuildWithWorkflow})
