"""The config, validated once, and the functions by which every rule reads it."""

import gc
import sys

from snakemake.path_modifier import PathModifier

from unet.planning import resources
from unet.config.load import load
from unet.planning.snakemake_hooks import show_table
from unet.errors import UserError
from unet.cli.failures import show_causes
from unet.planning.run_hooks import add_to, begin, warn
from unet.paths import FOLD_PATTERN, fold_name
from unet.planning.jobs import Run, offer_interpreter
from unet.planning.stale import compare_what_made_outputs
from unet.planning.untracked import Untracked

offer_interpreter()
# Three changes to what Snakemake does by itself, each for one thing that users notice: results that
# were moved, copied or cloned are not made again; a dry run prints one line per job, not sixteen; a
# failed job shows its error in one line, not its command and its whole log.
compare_what_made_outputs()
show_table(workflow)
show_causes(workflow, ROOT / "scripts")
# Planning makes millions of objects that stay, so frequent garbage collection only costs time:
# 12.5 s of CPU time for 8,400 jobs, without it 10.7 s.
gc.set_threshold(100_000, 50, 1000)

try:
    CONFIG = load(config)
    # In a module with a `prefix` the output folder is below it. Jobs and planning both need that,
    # so it is added here and not by Snakemake.
    below = workflow.modifier.path_modifier.replace_prefix(f"{CONFIG.output}/")
    CONFIG = CONFIG.model_copy(update={"output": below.removesuffix("/")})
    workflow.modifier.path_modifier = PathModifier(None, None, workflow)
    RUN = Run(CONFIG)
    RUN.check_sources()
except UserError as error:
    # Without a stack trace: which key, what was found, what to write.
    sys.exit(str(error))
PATHS = RUN.paths


if not workflow.modifier.is_main_snakefile():
    add_to(workflow, RUN)


wildcard_constraints:
    dataset="[A-Za-z0-9_-]+",
    # <model>@<dataset>: trained on that one, applied to another.
    model="[A-Za-z0-9_-]+(@[A-Za-z0-9_-]+)?",
    fold=FOLD_PATTERN,
    shard=r"\d+",


def common_options(stage):
    """The script and the output folder; results do not depend on where they are."""
    return Untracked(ROOT / "scripts" / f"{stage}.py", "--output", CONFIG.output)


def root_option(wildcards):
    return Untracked(f"--root={RUN.source(wildcards.dataset).root}")


def source_options(wildcards):
    """Where a dataset's raw files are; the manifest's settings track their content."""
    raw = RUN.source(wildcards.dataset)
    labels = [] if raw.labels is None else [f"--labels={raw.labels}"]
    # Written with =, so that a name with a leading dash is not an option.
    return Untracked(f"--root={raw.root}", f"--images={raw.images}", *labels)


def training_options(wildcards):
    section = CONFIG.train_for(wildcards.dataset, wildcards.model)
    return Untracked(
        "--checkpoint-seconds",
        section.checkpoint_seconds,
        "--cache-gb",
        section.cache_gb,
        "--gpus",
        section.gpus,
    )


def prediction_options(wildcards, gather=False):
    """How and where a fold is predicted; ``gather``: by the job that joins the shards."""
    section = CONFIG.predict_for(wildcards.dataset, wildcards.model)
    words = ["--batch", section.batch, "--memory-gb", CONFIG.memory_gb]
    words += ["--gpus", section.gpus, "--shards", section.shards]
    if gather and section.shards > 1:
        words += ["--gather"]
    elif section.cluster is not None:
        words += ["--cluster", section.cluster.model_dump_json()]
    return Untracked(*words)


def prediction_gpus(wildcards, gather=False):
    """GPUs of this machine that the job takes: none if other jobs compute."""
    section = CONFIG.predict_for(wildcards.dataset, wildcards.model)
    elsewhere = section.cluster is not None or (gather and section.shards > 1)
    return 0 if elsewhere else section.gpus


def job_of(wildcards, input, threads, gather=False):
    """What determines a job's resources; earlier stages wrote the sizes of the images."""
    table = input.get("prepared") or input.get("manifest")
    model, fold = wildcards.get("model", ""), wildcards.get("fold", "")
    return resources.PlannedJob(
        CONFIG,
        wildcards.dataset,
        resources.images_of(str(table)) if table else RUN.raw_images(wildcards.dataset),
        threads,
        model,
        networks=len(RUN.members(wildcards.dataset, fold, model)) if fold else 1,
        gather=gather and CONFIG.predict_for(wildcards.dataset, model).shards > 1,
    )


def memory_of(stage, gather=False):
    """MB of memory that a job of the stage requests; more with each attempt."""

    def mem_mb(wildcards, input, threads, attempt):
        return resources.memory_mb(
            stage, job_of(wildcards, input, threads, gather), attempt
        )

    return mem_mb


def minutes_of(stage, gather=False):
    """Minutes that a job of the stage requests; more with each attempt."""

    def runtime(wildcards, input, threads, attempt):
        return resources.minutes(
            stage, job_of(wildcards, input, threads, gather), attempt
        )

    return runtime


def trained(path, dataset, model):
    """The file ``path`` of each fold that is trained."""
    return [path(dataset, model, fold) for fold in RUN.folds(dataset)]


def tested(path, dataset, model):
    """The file ``path`` of each fold that is predicted and evaluated, or of their ensemble."""
    return [path(dataset, model, fold) for fold in RUN.tested(dataset)]
