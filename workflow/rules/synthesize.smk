"""Generates a dataset: raw/images/*.tif [Y, X], raw/labels/*.tif [Y, X], raw.json."""


rule synthesize:
    output:
        PATHS.raw_done("{dataset}"),
    log:
        PATHS.log("synthesize", "{dataset}"),
    benchmark:
        PATHS.benchmark("synthesize", "{dataset}")
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=memory_of("synthesize"),
        runtime=minutes_of("synthesize"),
    params:
        common=common_options("synthesize"),
        settings=lambda w: RUN.settings("synthesize", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --settings {params.settings:q} --log {log:q}"
