"""Downloads a public dataset into data_root, unless it is there: download.json (the archives' hashes)."""


rule download:
    output:
        PATHS.download_done("{dataset}"),
    log:
        PATHS.log("download", "{dataset}"),
    benchmark:
        PATHS.benchmark("download", "{dataset}")
    # Computing nodes often have no connection.
    localrule: True
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=memory_of("download"),
        runtime=minutes_of("download"),
    params:
        common=common_options("download"),
        source=download_options,
        settings=lambda w: RUN.settings("download", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset} {params.source}"
        " --settings {params.settings:q} --log {log:q}"
