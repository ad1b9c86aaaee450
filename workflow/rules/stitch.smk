"""tiles.zarr -> segmentation.zarr (OME-Zarr: probabilities [C, Y, X], labels/classes uint8 and
labels/instances uint32 [Y, X]), masks/*.tif, objects.csv, and on request geojson/*.geojson,
rois/*.zip and labels in the raw images; segmentation.json is their sentinel.
"""


rule stitch:
    input:
        tiles=PATHS.tiles_done("{dataset}", "{model}", "{fold}"),
        prepared=lambda w: PATHS.prepared_done(w.dataset, w.model),
        thresholds=lambda w: RUN.thresholds(w.dataset, w.model),
    output:
        done=PATHS.segmentation_done("{dataset}", "{model}", "{fold}"),
        objects=PATHS.objects("{dataset}", "{model}", "{fold}"),
    log:
        PATHS.log("stitch", "{dataset}", "{model}", "{fold}"),
    benchmark:
        PATHS.benchmark("stitch", "{dataset}", "{model}", "{fold}")
    conda:
        "../envs/unet.yaml"
    threads: 8
    resources:
        mem_mb=memory_of("stitch"),
        runtime=minutes_of("stitch"),
    params:
        common=common_options("stitch"),
        settings=lambda w: RUN.settings("stitch", w.dataset, w.model),
        root=root_option,
        results=lambda w: Untracked(*RUN.results(w.dataset, w.model, w.fold)),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --fold {wildcards.fold} --threads {threads} {params.root}"
        " --settings {params.settings:q} --log {log:q}"
