"""Finds the workflow's package and scripts, also if another workflow uses it as a module.

``workflow/rules/root.smk`` runs this file before the package can be imported, so this file imports
nothing from the package.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

# In the wheel, the folder in the package that holds workflow/, scripts/ and config/.
INSIDE = "_pipeline"


def pipeline_folder() -> Path:
    """The folder with workflow/, scripts/ and config/: in the package if it was installed from a
    wheel, beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / INSIDE
    return inside if inside.is_dir() else package.parent


def unpacked(repository: Any, ref: str, inner: str) -> Path:
    """Unpacks a commit's package and scripts below .snakemake, where all jobs of the run see them.

    Args:
        repository: a ``git.Repo``.
        ref: a name of the commit.
        inner: the project's folder in the repository; "" if it is the top folder.
    """
    commit = repository.commit(ref).hexsha
    root = Path(".snakemake", "unet", commit).absolute()
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f"{commit}.", dir=root.parent))
        try:
            with tempfile.TemporaryFile() as stream:
                repository.archive(stream, f"{commit}:{inner}", path=["unet", "scripts"])
                stream.seek(0)
                with tarfile.open(fileobj=stream) as archive:
                    _extract(archive, new)
            new.rename(root)
        except OSError:
            # Another job may have been faster; then use its files.
            if not root.exists():
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
    else:
        # Python before 3.11.4 has no filters. This is safe: the code in the archive runs anyway.
        archive.extractall(folder)


def root_of(folder: Any) -> Path:
    """The project's folder.

    Args:
        folder: Snakemake's object for the source of ``workflow/rules``.
    """
    from snakemake import sourcecache

    if isinstance(folder, sourcecache.LocalSourceFile):
        return Path(folder.path).parents[1]
    inner = str(PurePosixPath(folder.path).parents[1]) if hasattr(folder, "path") else ""
    inner = "" if inner == "." else inner
    if isinstance(folder, sourcecache.LocalGitFile):
        from git import Repo

        return unpacked(Repo(folder.repo_path), folder.ref, inner)
    if isinstance(folder, sourcecache.HostingProviderFile):
        return unpacked(folder.hosted_repo.repo, folder.ref, inner)
    sys.exit(
        f"error: {folder}: the workflow needs its package and scripts next to it; give the "
        "module's snakefile as a path, or with github(), gitlab() or gitfile()"
    )
