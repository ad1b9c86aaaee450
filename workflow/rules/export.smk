"""model.pt of one fold, its scores, a test image -> a package of the BioImage Model Zoo: weights in
several formats, description, test tensors. Runs for models with export.write.
"""


rule export:
    input:
        unpack(lambda w: RUN.export_inputs(w.dataset, w.model)),
    output:
        PATHS.package("{dataset}", "{model}"),
    log:
        PATHS.log("export", "{dataset}", "{model}"),
    benchmark:
        PATHS.benchmark("export", "{dataset}", "{model}")
    conda:
        "../envs/unet.yaml"
    threads: 2
    resources:
        mem_mb=memory_of("export"),
        runtime=minutes_of("export"),
    params:
        common=common_options("export"),
        settings=lambda w: RUN.settings("export", w.dataset, w.model),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --threads {threads}"
        " --settings {params.settings:q} --log {log:q}"
