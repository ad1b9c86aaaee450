"""What the check says about packages that later jobs need: better now than after the training."""

from __future__ import annotations

from unet.config.engine_table import ENGINE_TABLE
from unet.config.export_section import packages_for
from unet.config.run import Config
from unet.data.survey.findings import Finding
from unet.versions import missing


def package_findings(config: Config, dataset: str) -> list[Finding]:
    """Packages that are not installed here, each line once. No mistake: jobs may run elsewhere."""
    found: dict[Finding, None] = {}
    for model in config.models_for(dataset):
        predict = config.predict_for(dataset, model)
        engine = ENGINE_TABLE[predict.engine]
        more = engine.packages_of.get(predict.precision, ())
        found |= _finding("predict.engine", [*engine.packages, *more], "engines")
        export = config.export_for(dataset, model)
        if export.write and config.folds_for(dataset):
            found |= _finding("export.write", packages_for(export.weights), "zoo")
    return list(found)


def _finding(key: str, packages: list[str], extra: str) -> dict[Finding, None]:
    absent = missing(packages)
    if not absent:
        return {}
    text = (
        f"needs {', '.join(absent)}, which is not installed here; run "
        f"pip install 'unet-pipeline[{extra}]', unless the jobs run in another environment"
    )
    return {Finding("warn", "packages_missing", text, key): None}
