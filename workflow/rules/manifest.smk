"""Raw files -> manifest.csv (a row per image; unusable images with the reason), inputs.json (size,
time and hash of each file), splits.csv (image x fold -> train, val, test)."""


rule manifest:
    input:
        lambda w: RUN.sources.made_by_stage(w.dataset),
    output:
        manifest=PATHS.manifest("{dataset}"),
        inputs=PATHS.inputs("{dataset}"),
    log:
        PATHS.log("manifest", "{dataset}"),
    benchmark:
        PATHS.benchmark("manifest", "{dataset}")
    wildcard_constraints:
        dataset=RUN.read_pattern,
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("manifest"),
        runtime=minutes_of("manifest"),
    params:
        common=common_options("manifest"),
        source=source_options,
        settings=lambda w: RUN.settings("manifest", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " {params.source} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"


rule splits:
    input:
        PATHS.manifest("{dataset}"),
    output:
        PATHS.splits("{dataset}"),
    log:
        PATHS.log("splits", "{dataset}"),
    benchmark:
        PATHS.benchmark("splits", "{dataset}")
    wildcard_constraints:
        dataset=RUN.read_pattern,
    # It takes seconds: not worth a job in a queue.
    localrule: True
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        common=common_options("splits"),
        settings=lambda w: RUN.settings("splits", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --settings {params.settings:q} --log {log:q}"
