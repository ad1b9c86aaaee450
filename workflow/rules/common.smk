"""The config, validated once, and what every rule takes from it."""

import gc
import sys

from snakemake.path_modifier import PathModifier

from unet.planning import resources
from unet.config.load import load
from unet.planning.snakemake_hooks import remember_parameters, show_table
from unet.errors import UserError
from unet.cli.failures import show_causes
from unet.planning.run_hooks import add_to, begin, warn
from unet.paths import FOLD_PATTERN, fold_name
from unet.planning.jobs import Run, offer_interpreter
from unet.planning.stale import compare_what_made_outputs
from unet.planning.untracked import Untracked

offer_interpreter()
remember_parameters()
compare_what_made_outputs()
show_table(workflow)
show_causes(workflow, ROOT / "scripts")
# Planning makes millions of objects that stay; to look through them again and again finds none to
# drop.
gc.set_threshold(100_000, 50, 1000)

try:
    CONFIG = load(config)
    # Where a module of another workflow has a `prefix`, the output folder is below it: for jobs and
    # for planning as well, so not Snakemake but this adds it.
    below = workflow.modifier.path_modifier.replace_prefix(f"{CONFIG.output}/")
    CONFIG = CONFIG.model_copy(update={"output": below.removesuffix("/")})
    workflow.modifier.path_modifier = PathModifier(None, None, workflow)
    RUN = Run(CONFIG)
    RUN.check_sources()
except UserError as error:
    # The lines alone: which key, what was found, what to write.
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
    """The script and the output folder; results depend on neither's place."""
    return Untracked(ROOT / "scripts" / f"{stage}.py", "--output", CONFIG.output)


def root_option(wildcards):
    return Untracked(f"--root={RUN.source(wildcards.dataset).root}")


def source_options(wildcards):
    """Where a dataset's raw files are; what is in them is tracked by their fingerprint."""
    raw = RUN.source(wildcards.dataset)
    labels = [] if raw.labels is None else [f"--labels={raw.labels}"]
    # With = a name that begins with a dash is no option.
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
    """How and where a fold is predicted; ``gather``: by the job that comes after the shards."""
    section = CONFIG.predict_for(wildcards.dataset, wildcards.model)
    words = ["--batch", section.batch, "--memory-gb", CONFIG.memory_gb]
    words += ["--gpus", section.gpus, "--shards", section.shards]
    if gather and section.shards > 1:
        words += ["--gather"]
    elif section.cluster is not None:
        words += ["--cluster", section.cluster.model_dump_json()]
    return Untracked(*words)


def prediction_gpus(wildcards, gather=False):
    """GPUs of this machine that the job takes: none where others compute."""
    section = CONFIG.predict_for(wildcards.dataset, wildcards.model)
    elsewhere = section.cluster is not None or (gather and section.shards > 1)
    return 0 if elsewhere else section.gpus


def job_of(wildcards, input, threads, gather=False):
    """What a job's needs follow from; the sizes of the images from what the stages before wrote."""
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
    """MB of memory that a job of the stage asks for; more with each attempt."""

    def mem_mb(wildcards, input, threads, attempt):
        return resources.memory_mb(
            stage, job_of(wildcards, input, threads, gather), attempt
        )

    return mem_mb


def minutes_of(stage, gather=False):
    """Minutes that a job of the stage asks for; more with each attempt."""

    def runtime(wildcards, input, threads, attempt):
        return resources.minutes(
            stage, job_of(wildcards, input, threads, gather), attempt
        )

    return runtime


def trained(path, dataset, model):
    """That file of each fold that is trained."""
    return [path(dataset, model, fold) for fold in RUN.folds(dataset)]


def tested(path, dataset, model):
    """That file of each fold that is predicted and evaluated, or of their ensemble."""
    return [path(dataset, model, fold) for fold in RUN.tested(dataset)]
