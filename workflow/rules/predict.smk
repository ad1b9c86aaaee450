"""model.pt (of all folds for an ensemble), prepared.zarr -> tiles.zarr: for each held-out image the
cores of its tiles, float16 [tile, class, y, x], with their grid; tiles.json is its sentinel. With
predict.shards several jobs predict, and rule predict joins their tiles.
"""


rule predict:
    input:
        models=lambda w: RUN.networks(w.dataset, w.model, w.fold),
        prepared=lambda w: PATHS.prepared_done(w.dataset, w.model),
        splits=lambda w: RUN.splits(w.dataset),
        shards=lambda w: RUN.shards(w.dataset, w.model, w.fold),
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
        gpu=lambda w: prediction_gpus(w, gather=True),
        mem_mb=memory_of("predict", gather=True),
        runtime=minutes_of("predict", gather=True),
    params:
        common=common_options("predict"),
        settings=lambda w: RUN.settings("predict", w.dataset, w.model),
        speed=lambda w: prediction_options(w, gather=True),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --fold {wildcards.fold} --threads {threads} {params.speed}"
        " --settings {params.settings:q} --log {log:q}"


rule predict_shard:
    input:
        models=lambda w: RUN.networks(w.dataset, w.model, w.fold),
        prepared=lambda w: PATHS.prepared_done(w.dataset, w.model),
        splits=lambda w: RUN.splits(w.dataset),
    output:
        PATHS.shard_done("{dataset}", "{model}", "{fold}", "{shard}"),
    log:
        PATHS.log("predict_shard", "{dataset}", "{model}", "{fold}", "{shard}"),
    benchmark:
        PATHS.benchmark("predict_shard", "{dataset}", "{model}", "{fold}", "{shard}")
    conda:
        "../envs/unet.yaml"
    threads: 16
    resources:
        gpu=prediction_gpus,
        mem_mb=memory_of("predict"),
        runtime=minutes_of("predict"),
    params:
        common=common_options("predict"),
        settings=lambda w: RUN.settings("predict", w.dataset, w.model),
        speed=prediction_options,
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --fold {wildcards.fold} --threads {threads} {params.speed}"
        " --shard {wildcards.shard} --settings {params.settings:q} --log {log:q}"
