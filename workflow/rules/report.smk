"""metrics.csv of all models (without labels: segmentation.json), the tables that explain them,
history.csv, manifest and splits -> report.csv and report.html, for each dataset and over all
datasets."""


rule report_dataset:
    input:
        tables=lambda w: RUN.report_inputs(w.dataset),
        manifest=PATHS.manifest("{dataset}"),
    output:
        csv=report(
            PATHS.dataset_report_csv("{dataset}"),
            caption="../report/table.rst",
            category="Results",
            subcategory="{dataset}",
            labels={"dataset": "{dataset}", "what": "table"},
        ),
        html=report(
            PATHS.dataset_report_html("{dataset}"),
            caption="../report/html.rst",
            category="Results",
            subcategory="{dataset}",
            labels={"dataset": "{dataset}", "what": "report"},
        ),
    log:
        PATHS.log("report", "{dataset}"),
    benchmark:
        PATHS.benchmark("report", "{dataset}")
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=memory_of("report"),
        runtime=minutes_of("report"),
    params:
        common=common_options("report"),
        settings=lambda w: RUN.settings("report", w.dataset),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --settings {params.settings:q} --log {log:q}"


rule report:
    input:
        csv=[PATHS.dataset_report_csv(d) for d in sorted(CONFIG.datasets)],
    output:
        csv=report(
            PATHS.report_csv,
            caption="../report/table.rst",
            category="Results",
            subcategory="all datasets",
            labels={"dataset": "all", "what": "table"},
        ),
        html=report(
            PATHS.report_html,
            caption="../report/html.rst",
            category="Results",
            subcategory="all datasets",
            labels={"dataset": "all", "what": "report"},
        ),
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.benchmark("report")
    # It takes seconds: not worth a job in a queue.
    localrule: True
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        common=common_options("report"),
        settings=RUN.settings_all(),
    shell:
        "python {params.common} --all" " --settings {params.settings:q} --log {log:q}"
