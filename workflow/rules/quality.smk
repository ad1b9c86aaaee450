"""segmentation.zarr and metrics.csv of the dataset that a model was trained on (its test images),
segmentation.zarr of a dataset that it is applied to -> quality.csv: per image a predicted score,
an interval for its count, how unlike the training images it is, whether it needs a look.
"""


rule quality:
    input:
        results=lambda w: RUN.quality_inputs(w.dataset, w.model),
        prepared=lambda w: PATHS.prepared_done(w.dataset, w.model),
    output:
        PATHS.quality("{dataset}", "{model}"),
    log:
        PATHS.log("quality", "{dataset}", "{model}"),
    benchmark:
        PATHS.benchmark("quality", "{dataset}", "{model}")
    conda:
        "../envs/unet.yaml"
    threads: 4
    resources:
        mem_mb=memory_of("quality"),
        runtime=minutes_of("quality"),
    params:
        common=common_options("quality"),
        settings=lambda w: RUN.settings("quality", w.dataset, w.model),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
