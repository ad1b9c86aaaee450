"""segmentation.zarr of all folds, labels -> details/: matches.csv (a row per object), confusion.csv
(pixels per pair of classes), thresholds.csv (pixels per class and bin of its probability).
"""


rule details:
    input:
        segmentation=lambda w: tested(PATHS.segmentation_done, w.dataset, w.model),
        prepared=lambda w: PATHS.prepared_done(w.dataset, w.model),
    output:
        matches=PATHS.matches("{dataset}", "{model}"),
        confusion=PATHS.confusion("{dataset}", "{model}"),
        thresholds=PATHS.thresholds("{dataset}", "{model}"),
    log:
        PATHS.log("details", "{dataset}", "{model}"),
    benchmark:
        PATHS.benchmark("details", "{dataset}", "{model}")
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("details"),
        runtime=minutes_of("details"),
    params:
        common=common_options("details"),
        settings=lambda w: RUN.settings("details", w.dataset),
        folds=lambda w: [fold_name(fold) for fold in RUN.tested(w.dataset)],
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --folds {params.folds} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
