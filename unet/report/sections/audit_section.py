"""Labels that the models doubt, worst first."""

from __future__ import annotations

from dataclasses import replace

from unet.evaluation.audit.audit_summary import POOR_AGREEMENT
from unet.evaluation.audit.doubts import KINDS
from unet.export.mark_colours import COLOURS
from unet.report import doubt_crops
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.shared_doubts import shared_doubts

# Doubts in the page's table.
SHOWN = 30


def section(data: DatasetResults) -> PageSection | None:
    if not data.audits:
        return None
    doubts = {audit.model: rows for audit, rows in data.audits if not audit.poor}
    if not doubts:
        # Poor models judge no parts of labels, but may see that whole labels are exchanged. The
        # other doubts stay in the list, since ranks count them.
        doubts = {
            audit.model: [
                row if row.kind == "exchanged" else replace(row, confidence=0.0) for row in rows
            ]
            for audit, rows in data.audits
            if not audit.blind
        }
    found = shared_doubts(doubts)
    shown = found[:SHOWN]
    where, task = (data.paths, data.dataset), data.settings.task
    pictures = [doubt_crops.crop(*where, each.models[0], task, each.doubt) for each in shown]
    kinds = {each.doubt.kind for each in shown}
    return data.section(
        "audit",
        "Labels",
        audits=[audit for audit, _ in data.audits],
        poor_agreement=POOR_AGREEMENT,
        exchanged=len({each.doubt.image for each in found if each.doubt.kind == "exchanged"}),
        judging=len(doubts),
        found=found,
        shown=list(zip(shown, pictures, strict=True)),
        kinds={kind: text for kind, text in KINDS.items() if kind in kinds},
        colours=COLOURS,
        outlines=sorted(
            model for model in doubts if data.paths.audit_outlines(data.dataset, model).is_dir()
        ),
    )
