"""manifest.csv and raw files (and splits.csv, if it is there and up to date; and manifest.csv of the
datasets whose models trainings start from) -> check.json, check.html: what was understood of a dataset, what looks wrong, and what a run will cost. Nothing
else depends on them: `snakemake check` asks for them, shows what they say, and fails if a finding
must stop a run. The pages are then complete, since only the job that joins them fails.
"""


rule check_dataset:
    input:
        manifest=PATHS.manifest("{dataset}"),
        # Of the datasets whose models predict this one.
        origins=lambda w: RUN.origin_checks(w.dataset),
        # Of the datasets whose models its trainings start from.
        starts=lambda w: list(RUN.start_manifests(w.dataset).values()),
    output:
        json=PATHS.check_json("{dataset}"),
        html=PATHS.check_html("{dataset}"),
    log:
        PATHS.log("check", "{dataset}"),
    benchmark:
        PATHS.benchmark("check", "{dataset}")
    wildcard_constraints:
        dataset=RUN.read_pattern,
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("check"),
        runtime=minutes_of("check"),
    params:
        common=common_options("check"),
        source=checked_options,
        settings=lambda w: RUN.settings("check", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " {params.source} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"


# No output: it shows the findings each time.
rule check:
    input:
        [PATHS.check_json(d) for d in CONFIG.with_files],
    log:
        PATHS.log("check"),
    # It takes seconds: not worth a job in a queue.
    localrule: True
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        common=common_options("check"),
        settings=RUN.settings_check(),
    shell:
        "python {params.common} --all" " --settings {params.settings:q} --log {log:q}"
