"""segmentation.zarr of all folds, labels -> metrics.csv: image, class, metric, value (tidy)."""


rule evaluate:
    input:
        segmentation=lambda w: tested(PATHS.segmentation_done, w.dataset, w.model),
        prepared=lambda w: PATHS.prepared_done(w.dataset, w.model),
        thresholds=lambda w: RUN.threshold_scores(w.dataset, w.model),
    output:
        PATHS.metrics("{dataset}", "{model}"),
    log:
        PATHS.log("evaluate", "{dataset}", "{model}"),
    benchmark:
        PATHS.benchmark("evaluate", "{dataset}", "{model}")
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("evaluate"),
        runtime=minutes_of("evaluate"),
    params:
        common=common_options("evaluate"),
        settings=lambda w: RUN.settings("evaluate", w.dataset),
        folds=lambda w: [fold_name(fold) for fold in RUN.tested(w.dataset)],
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --folds {params.folds} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
