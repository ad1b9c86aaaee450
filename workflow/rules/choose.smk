"""model.pt and history.csv of all models of a sweep -> choice.json: their validation scores, and
which is the best; copies of its model.pt, history.csv and curves.png. For a model with a sweep
this takes the place of rule train. It reads the scores of all folds if they test the same images,
else those of its own fold.
"""


rule choose:
    input:
        histories=lambda w: RUN.deciding(w.dataset, w.model, w.fold),
        models=lambda w: RUN.tried(PATHS.model, w.dataset, w.model, w.fold),
    output:
        choice=PATHS.choice("{dataset}", "{model}", "{fold}"),
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
        PATHS.log("choose", "{dataset}", "{model}", "{fold}"),
    benchmark:
        PATHS.benchmark("choose", "{dataset}", "{model}", "{fold}")
    wildcard_constraints:
        model=RUN.chosen_pattern,
        fold=r"\d+",
    # It takes seconds: not worth a job in a queue.
    localrule: True
    conda:
        "../envs/unet.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        common=common_options("choose"),
        settings=lambda w: RUN.settings("choose", w.dataset, w.model),
    shell:
        "python {params.common} --dataset {wildcards.dataset}"
        " --model {wildcards.model} --fold {wildcards.fold}"
        " --settings {params.settings:q} --log {log:q}"
