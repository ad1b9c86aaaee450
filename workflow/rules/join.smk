"""manifest.csv, splits.csv and prepared.json of each joined dataset -> the same files for them
together, and prepared.zarr, which names their stores: no image is copied. Only for datasets with
the key join, instead of the rules manifest, splits and prepare.
"""


rule join:
    input:
        lambda w: RUN.joined_inputs(w.dataset),
    output:
        manifest=PATHS.manifest("{dataset}"),
        splits=PATHS.splits("{dataset}"),
        prepared=PATHS.prepared_done("{dataset}"),
    log:
        PATHS.log("join", "{dataset}"),
    benchmark:
        PATHS.benchmark("join", "{dataset}")
    wildcard_constraints:
        dataset=RUN.joined_pattern,
    # It takes seconds: not worth a job in a queue.
    localrule: True
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        common=common_options("join"),
        settings=lambda w: RUN.settings("join", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --settings {params.settings:q} --log {log:q}"
