"""ROOT: the folder that holds the package and the scripts. Also where this is a module of another
workflow, from a folder or from a git repository, of which Snakemake itself fetches single files.
"""

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from snakemake import sourcecache


def unpacked(repository, ref, inner):
    """A commit's package and scripts, below .snakemake, where all jobs of the run see them.

    Args:
        inner: the project's folder in the repository, "" for the whole of it.
    """
    commit = repository.commit(ref).hexsha
    root = Path(".snakemake", "unet", commit).absolute()
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f"{commit}.", dir=root.parent))
        try:
            with tempfile.TemporaryFile() as stream:
                repository.archive(
                    stream, f"{commit}:{inner}", path=["unet", "scripts"]
                )
                stream.seek(0)
                with tarfile.open(fileobj=stream) as archive:
                    archive.extractall(new, filter="data")
            new.rename(root)
        except OSError:
            # Where another job of the run has been faster its files do as well.
            if not root.exists():
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return root


def root_of(folder):
    """The project's folder; ``folder`` is Snakemake's note of where this file comes from."""
    if isinstance(folder, sourcecache.LocalSourceFile):
        return Path(folder.path).parents[1]
    inner = (
        str(PurePosixPath(folder.path).parents[1]) if hasattr(folder, "path") else ""
    )
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


ROOT = root_of(workflow.current_basedir)
sys.path.insert(0, str(ROOT))
