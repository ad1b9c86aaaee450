"""segmentation.zarr of all folds, labels -> audit.csv: the doubts about the labels, worst first;
and their outlines, audit/*.geojson and audit/*.zip (2D).
"""


rule audit:
    input:
        segmentation=lambda w: tested(PATHS.segmentation_done, w.dataset, w.model),
        prepared=PATHS.prepared_done("{dataset}"),
    output:
        PATHS.audit("{dataset}", "{model}"),
    log:
        PATHS.log("audit", "{dataset}", "{model}"),
    benchmark:
        PATHS.benchmark("audit", "{dataset}", "{model}")
    conda:
        "../envs/unet.yaml"
    threads: 4
    resources:
        mem_mb=memory_of("audit"),
        runtime=minutes_of("audit"),
    params:
        common=common_options("audit"),
        settings=lambda w: RUN.settings("audit", w.dataset),
        folds=lambda w: [fold_name(fold) for fold in RUN.tested(w.dataset)],
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --folds {params.folds} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
