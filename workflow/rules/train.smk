"""prepared.zarr, splits.csv (with train.from: model.pt of another model) -> model.pt (weights and everything needed to apply them),
history.csv (a row per epoch), curves.png. Checkpoints are undeclared files in checkpoints/.
"""


rule train:
    input:
        prepared=PATHS.prepared_done("{dataset}"),
        splits=PATHS.splits("{dataset}"),
        # With train.from: the model of this run that the training starts from.
        start=lambda w: RUN.start_inputs(w.dataset, w.model, w.fold),
    output:
        model=PATHS.model("{dataset}", "{model}", "{fold}"),
        history=PATHS.history("{dataset}", "{model}", "{fold}"),
        curves=report(
            PATHS.curves("{dataset}", "{model}", "{fold}"),
            caption="../report/curves.rst",
            category="Training",
            subcategory="{dataset}",
            labels={"model": "{model}", "fold": "{fold}"},
        ),
    log:
        PATHS.log("train", "{dataset}", "{model}", "{fold}"),
    benchmark:
        PATHS.benchmark("train", "{dataset}", "{model}", "{fold}")
    wildcard_constraints:
        model=RUN.trained_pattern,
        fold=r"\d+",
    conda:
        "../envs/unet.yaml"
    threads: 16
    resources:
        gpu=lambda w: CONFIG.train_for(w.dataset, w.model).gpus,
        mem_mb=memory_of("train"),
        runtime=minutes_of("train"),
    params:
        common=common_options("train"),
        settings=lambda w: RUN.settings("train", w.dataset, w.model),
        speed=training_options,
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --fold {wildcards.fold} --threads {threads} {params.speed}"
        " --settings {params.settings:q} --log {log:q}"
