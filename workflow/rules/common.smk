"""Validates the config once, and defines the functions through which the rules read it."""

import gc
import sys

from snakemake.path_modifier import PathModifier

from unet.planning import resources
from unet.config.load import load
from unet.planning.snakemake_hooks import show_table
from unet.errors import UserError
from unet.cli.failures import show_causes
from unet.cli.run_events import tell_events
from unet.planning.run_hooks import add_hooks, begin_run, print_warnings
from unet.paths import FOLD_PATTERN, compared_model, fold_name
from unet.planning.image_sizes import images_of
from unet.planning.jobs import Run, offer_interpreter
from unet.planning.stale import compare_what_made_outputs
from unet.planning.untracked import Untracked

offer_interpreter()
# Three changes to Snakemake's behaviour: results that were moved, copied or cloned are not
# recomputed; a dry run prints one line per job, not sixteen; a failed job shows its error in one
# line, not its command and its whole log.
compare_what_made_outputs()
show_table(workflow)
show_causes(workflow, ROOT / "scripts")
# Planning creates millions of objects that stay alive, so frequent garbage collection only costs
# time: planning 8,400 jobs takes 12.5 s of CPU time with it, 10.7 s without.
gc.set_threshold(100_000, 50, 1000)

try:
    CONFIG = load(config)
    # In a module with a `prefix` the output folder is below the prefix. Jobs and planning both need
    # to know that, so the prefix is added here and not by Snakemake.
    below = workflow.modifier.path_modifier.replace_prefix(f"{CONFIG.output}/")
    CONFIG = CONFIG.model_copy(update={"output": below.removesuffix("/")})
    workflow.modifier.path_modifier = PathModifier(None, None, workflow)
    RUN = Run(CONFIG)
    RUN.sources.check()
except UserError as error:
    # Print only the message, no stack trace.
    sys.exit(str(error))
PATHS = RUN.paths
tell_events(workflow, RUN, ROOT / "scripts")


if not workflow.modifier.is_main_snakefile():
    add_hooks(workflow, RUN)


wildcard_constraints:
    dataset="[A-Za-z0-9_-]+",
    # <model>@<dataset>: trained on that dataset, applied to another one.
    model="[A-Za-z0-9_-]+(@[A-Za-z0-9_-]+)?",
    tool="[A-Za-z0-9_-]+",
    fold=FOLD_PATTERN,
    shard=r"\d+",


def common_options(stage):
    """The script and the output folder, whose paths change no result."""
    return Untracked(ROOT / "scripts" / f"{stage}.py", "--output", CONFIG.output)


def root_option(wildcards):
    return Untracked(f"--root={RUN.sources.of(wildcards.dataset).root}")


def source_options(wildcards):
    """The paths of a dataset's raw files; their content is tracked by the manifest's settings."""
    raw = RUN.sources.of(wildcards.dataset)
    labels = [] if raw.labels is None else [f"--labels={raw.labels}"]
    made = ["--downloaded"] if RUN.sources.is_downloaded(wildcards.dataset) else []
    # With =, so that a name with a leading dash is not read as an option.
    return Untracked(f"--root={raw.root}", f"--images={raw.images}", *labels, *made)


def download_options(wildcards):
    """Where a public dataset is put, and fetched from if not from its own address."""
    source = CONFIG.datasets[wildcards.dataset].download_from
    given = [] if source is None else [f"--from={source}"]
    return Untracked(f"--root={RUN.sources.data_root}", *given)


def compared_options(wildcards):
    """The paths of another tool's masks; their content is tracked by the stage's settings."""
    source = RUN.sources.compared(wildcards.dataset, wildcards.tool)
    images = RUN.sources.of(wildcards.dataset).root
    words = [f"--masks={source.root / source.images}", f"--root={images}"]
    if model := RUN.prepared_for(wildcards.dataset):
        words.append(f"--prepared-for={model}")
    return Untracked(*words)


def checked_options(wildcards):
    """The paths of a dataset's raw files and of other tools' masks, for the check."""
    words = []
    for tool in CONFIG.datasets[wildcards.dataset].compare:
        source = RUN.sources.compared(wildcards.dataset, tool)
        words.append(f"--masks={tool}={source.root / source.images}")
    for model in RUN.start_contents(wildcards.dataset):
        words.append(f"--start={model}={RUN.start_file(wildcards.dataset, model, 0)}")
    return Untracked(*source_options(wildcards).words, *words)


def training_options(wildcards):
    section = CONFIG.train_for(wildcards.dataset, wildcards.model)
    # A start replaces the encoder's weights.
    weights = (
        RUN.sources.encoder_weights(wildcards.model) if section.start is None else None
    )
    # The content of the file to start from is tracked by the settings, or as an input.
    start = RUN.start_file(wildcards.dataset, wildcards.model, wildcards.fold)
    return Untracked(
        "--checkpoint-seconds",
        section.checkpoint_seconds,
        "--cache-gb",
        section.cache_gb,
        "--gpus",
        section.gpus,
        *(["--compile"] if section.compile else []),
        *([] if weights is None else ["--encoder-weights", weights]),
        *([] if start is None else [f"--start={start}"]),
    )


def prediction_options(wildcards, gather=False):
    """Options for how and where a fold is predicted; ``gather``: for the job that joins shards."""
    section = CONFIG.predict_for(wildcards.dataset, wildcards.model)
    words = ["--batch", section.batch, "--memory-gb", CONFIG.memory_gb]
    words += ["--gpus", section.gpus, "--shards", section.shards]
    if gather and section.shards > 1:
        words += ["--gather"]
    elif section.cluster is not None:
        words += ["--cluster", section.cluster.model_dump_json()]
    return Untracked(*words)


def prediction_gpus(wildcards, gather=False):
    """GPUs of this machine that the job uses: none if other jobs compute."""
    section = CONFIG.predict_for(wildcards.dataset, wildcards.model)
    elsewhere = section.cluster is not None or (gather and section.shards > 1)
    return 0 if elsewhere else section.gpus


def job_of(wildcards, input, threads, gather=False):
    """What a job's resources depend on; image sizes come from the files of earlier stages."""
    table = input.get("prepared") or input.get("manifest")
    model, fold = wildcards.get("model", ""), wildcards.get("fold", "")
    return resources.PlannedJob(
        CONFIG,
        wildcards.dataset,
        images_of(str(table)) if table else RUN.sources.images(wildcards.dataset),
        threads,
        model,
        networks=len(RUN.members(wildcards.dataset, fold, model)) if fold else 1,
        gather=gather and CONFIG.predict_for(wildcards.dataset, model).shards > 1,
    )


def memory_of(stage, gather=False):
    """Memory in MB that a job of the stage requests; more with each attempt."""

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
    """The file ``path`` of each fold that is predicted and evaluated, or of the ensemble."""
    return [path(dataset, model, fold) for fold in RUN.tested(dataset)]
