"""Where the workflow's package and scripts are, also where it is a module of another workflow.

``workflow/rules/root.smk`` runs this file before it can import the package, so it imports nothing
of it.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any


def unpacked(repository: Any, ref: str, inner: str) -> Path:
    """A commit's package and scripts, below .snakemake, where all jobs of the run see them.

    Args:
        repository: a ``git.Repo``.
        ref: names the commit.
        inner: the project's folder in the repository, "" for the whole of it.
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
            # Where another job of the run has been faster its files do as well.
            if not root.exists():
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
    else:
        # Python before 3.11.4 has no filters. Git made the archive, of code that is run anyway.
        archive.extractall(folder)


def root_of(folder: Any) -> Path:
    """The project's folder.

    Args:
        folder: Snakemake's note of where ``workflow/rules`` comes from.
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
        f"error: {folder}: the workflow needs its package and scripts beside it; give the module's "
        "snakefile as a path, or by github(), gitlab() or gitfile()"
    )
