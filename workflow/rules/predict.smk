"""model.pt (of all folds for an ensemble), prepared.zarr -> tiles.zarr: per held-out image the
cores of its tiles, float16 [tile, class, y, x], with their grid; tiles.json stands for it.
"""


rule predict:
    input:
        models=lambda w: [
            PATHS.model(w.dataset, w.model, fold)
            for fold in RUN.members(w.dataset, w.fold)
        ],
        prepared=PATHS.prepared_done("{dataset}"),
        splits=PATHS.splits("{dataset}"),
    output:
        PATHS.tiles_done("{dataset}", "{model}", "{fold}"),
    log:
        PATHS.log("predict", "{dataset}", "{model}", "{fold}"),
    benchmark:
        PATHS.benchmark("predict", "{dataset}", "{model}", "{fold}")
    conda:
        "../envs/unet.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=int(1000 * (CONFIG.memory_gb + 4)),
        runtime=12 * 60,
    params:
        common=common_options("predict"),
        settings=lambda w: RUN.settings("predict", w.dataset, w.model),
        speed=prediction_options,
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --fold {wildcards.fold} --threads {threads} {params.speed}"
        " --settings {params.settings:q} --log {log:q}"
