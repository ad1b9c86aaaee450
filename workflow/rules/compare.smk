"""Masks of another tool (datasets.<name>.compare), labels -> metrics.csv like a model's, of the same
test images; segmentation.zarr of each fold (labels/classes uint8, for objects labels/instances
uint32 [Y, X]); masks.json (size, time and hash of each mask)."""


rule compare:
    input:
        manifest=PATHS.manifest("{dataset}"),
        splits=lambda w: RUN.splits(w.dataset),
        prepared=lambda w: PATHS.prepared_done(w.dataset, RUN.prepared_for(w.dataset)),
    output:
        metrics=PATHS.metrics("{dataset}", compared_model("{tool}")),
        masks=PATHS.compared_files("{dataset}", "{tool}"),
    log:
        PATHS.log("compare", "{dataset}", "{tool}"),
    benchmark:
        PATHS.benchmark("compare", "{dataset}", "{tool}")
    conda:
        "../envs/unet.yaml"
    threads: 4
    resources:
        mem_mb=memory_of("compare"),
        runtime=minutes_of("compare"),
    params:
        common=common_options("compare"),
        source=compared_options,
        settings=lambda w: RUN.settings("compare", w.dataset, w.tool),
        folds=lambda w: [fold_name(fold) for fold in RUN.tested(w.dataset)],
        results=lambda w: Untracked(*RUN.compared_results(w.dataset, w.tool)),
    shell:
        "python {params.common} --dataset {wildcards.dataset} --tool {wildcards.tool}"
        " {params.source} --folds {params.folds} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
