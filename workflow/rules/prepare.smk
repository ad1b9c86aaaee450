"""manifest.csv and raw files -> prepared.zarr: for each image `image` float32 [C, Y, X],
normalised, `classes` uint8 [Y, X] (255 = ignore), `instances` uint32 [Y, X]; prepared.json is its
sentinel. prepare_applied prepares images for a model of another dataset: with the normalisation and
pixel size in its model.pt.
"""


rule prepare:
    input:
        manifest=PATHS.manifest("{dataset}"),
    output:
        PATHS.prepared_done("{dataset}"),
    log:
        PATHS.log("prepare", "{dataset}"),
    benchmark:
        PATHS.benchmark("prepare", "{dataset}")
    wildcard_constraints:
        dataset=RUN.read_pattern,
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("prepare"),
        runtime=minutes_of("prepare"),
    params:
        common=common_options("prepare"),
        settings=lambda w: RUN.settings("prepare", w.dataset),
        root=root_option,
        memory=Untracked(CONFIG.memory_gb),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --threads {threads} --memory-gb {params.memory} {params.root}"
        " --settings {params.settings:q} --log {log:q}"


rule prepare_applied:
    input:
        manifest=PATHS.manifest("{dataset}"),
        models=lambda w: RUN.networks(w.dataset, w.model),
    output:
        PATHS.prepared_done("{dataset}", "{model,[A-Za-z0-9_-]+@[A-Za-z0-9_-]+}"),
    log:
        PATHS.log("prepare_applied", "{dataset}", "{model}"),
    benchmark:
        PATHS.benchmark("prepare_applied", "{dataset}", "{model}")
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("prepare_applied"),
        runtime=minutes_of("prepare_applied"),
    params:
        common=common_options("prepare_applied"),
        settings=lambda w: RUN.settings("prepare_applied", w.dataset, w.model),
        root=root_option,
        memory=Untracked(CONFIG.memory_gb),
    shell:
        "python {params.common} --dataset {wildcards.dataset} --model {wildcards.model}"
        " --threads {threads} --memory-gb {params.memory} {params.root}"
        " --settings {params.settings:q} --log {log:q}"
