r"""Turns the facts of a dataset into findings: what stops, what looks wrong, what is good to know.

| kind | level | about |
|---|---|---|
| `unreadable_dataset` | stop | nothing found, or names that do not show what belongs together |
| `none_usable` | stop | all images are left out |
| `no_labels` | stop | a dataset to train on without any label |
| `too_few_to_split` | stop | too few images or groups to train, validate and test |
| `split_unusable` | stop | the sheet's parts or the groups do not make a split |
| `copies_across_parts` | stop | one file in two parts of a split |
| `no_objects` | stop | no object in any label, or in any training image |
| `one_class` | stop | the training labels have a single class |
| `class_missing` | stop, warn | a class that no training image has (warn: in some folds) |
| `left_out` | warn | an image that cannot be used, for another reason than those below |
| `no_label` | warn | images without a label |
| `labels_alone` | warn | labels without an image |
| `not_a_file` | warn | links, pipes and devices |
| `mixed_axes`, `mixed_channels` | warn | planes among volumes; numbers of channels differ |
| `mixed_types` | warn | types of pixels differ |
| `unknown_values` | warn | label values of no class |
| `images_labels_swapped` | warn | labels look like images |
| `label_is_image` | warn | a label is a copy of its image |
| `size_mismatch` | warn | a label has another size than its image |
| `blank_image` | warn, note | an image with a single value (note: it is only predicted) |
| `binary_mask` | warn | one number, many separate pieces |
| `scattered_numbers` | warn | one number in several places |
| `swapped_classes` | warn | all classes but the first cover nearly everything |
| `covered` | warn | objects cover nearly everything |
| `empty_label` | warn | labels without an object |
| `one_class_label` | warn | labels with a single class |
| `float_label` | note | label values that are not stored as integers |
| `odd_pixel_size` | warn | an impossible or unusual pixel size |
| `white_is_zero` | note | the file says that zero is white |
| `palette_file` | note | values are indices of colours |
| `files_not_read` | warn | files of kinds that have no reader, names that are not UTF-8 |
| `named_like_labels` | warn | images that are named like labels of others |
| `labels_among_images` | note | label files in the folder of the images; they are not images |
| `copies` | warn | one file under several names |
| `few_images` | warn, note | few labelled images (note: less than 25) |
| `few_to_train` | warn | a fold trains on one or two images |
| `few_tested` | warn | too few images or groups are tested to tell models apart |
| `few_validated` | warn | a sweep that chooses on one validation image |
| `one_combination` | warn | a sweep of one combination of values |
| `one_share` | warn | a learning curve of two points |
| `same_shares` | warn | shares of a learning curve that are the same images |
| `few_for_curve` | warn | too few test images or groups for a learning curve |
| `huge_group` | warn | a group with most of the images |
| `uneven_split` | warn | a fold tests far more or fewer images than requested |
| `no_pixel_size` | note | files do not say their pixel size |
| `several_sizes` | note | images of several sizes |
| `several_pixel_sizes` | note | pixel sizes differ |
| `few_bits` | note | 16-bit files whose values need at most 14 bits |
| `saturated` | warn, note | many pixels with the camera's largest value (warn: in most images) |
| `blurred` | warn | images that are far less sharp than the others |
| `specks` | warn | most objects are a few pixels large |
| `larger_than_patch` | warn | objects larger than a model's patch |
| `in_pieces` | warn, note | one number in several pieces (note: in few objects) |
| `with_holes` | warn, note | objects with holes (note: few) |
| `sparse_labels` | warn | much that looks like the objects has no label |
| `some_labelled` | note | only some objects have a label, and the config says so |
| `no_background` | stop | sparse labels, and no pixel is marked as background |
| `same_across_parts`, `near_across_parts`, `neighbours_across_parts` | warn | images that look \
alike, in different parts of the split |
| `same_images`, `near_images`, `neighbours_images` | note | images that look alike |
| `sequence` | note | images that follow each other look alike, without groups |
| `no_masks` | stop | `compare`: no folder, no mask of a test image, or none that can be scored |
| `masks_unfit` | warn | `compare`: masks that cannot be scored, such as of another size |
| `masks_missing` | warn | `compare`: test images without a mask |
| `masks_unclear` | warn | `compare`: files that are not used, or could be masks of several images |
| `masks_are_labels` | warn | `compare`: masks that are the labels |
| `masks_same` | warn | `compare`: masks that are those of another tool |
| `masks_binary` | warn | `compare`: masks of foreground, without numbered objects |
| `start_differs` | warn | `train.from`: its network, task, pixel size or normalisation differ |
| `packages_missing` | warn | an engine or the export needs packages that are not installed |
| `encoder_unused` | warn | `encoder_weights` of a model whose trainings all have `train.from` |
| `start_missing` | warn | `train.freeze` or `train.norm_statistics` without `train.from` |
| `long_warm_up` | warn | `train.warmup_steps` is as long as the training |
| `start_unreadable` | stop | `train.from`: the file is missing, or is no model |
| `other_warning` | warn | other warnings of the stages |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from unet.config.run import Config
from unet.data.dataset_warnings import merged
from unet.data.records import ImageRecord
from unet.data.survey.facts import DatasetSurvey
from unet.data.survey.findings import Finding, Level
from unet.data.survey.judge_facts import measured_findings
from unet.data.survey.known_texts import (
    OF_DATASETS,
    OF_ERRORS,
    OF_IMAGES,
    OF_REASONS,
    Known,
    named,
)
from unet.data.survey.measure import Measured
from unet.data.survey.understood import Understood

OTHER: tuple[Level, str] = ("warn", "other_warning")
# The first kind says what the second one would repeat.
_SAID_BETTER = (
    ("copies", "same_images"),
    ("copies_across_parts", "copies"),
    ("binary_mask", "in_pieces"),
    ("scattered_numbers", "in_pieces"),
    ("odd_pixel_size", "several_pixel_sizes"),
    ("too_few_to_split", "few_images"),
)


def findings_of(
    survey: DatasetSurvey, found: Understood, measured: Sequence[Measured], config: Config
) -> list[Finding]:
    """All findings, in the order of their causes.

    Args:
        survey: the facts, without findings.
    """
    trained = not config.origins_for(survey.dataset)
    findings = [
        *_stops(survey, found, trained),
        *_of_lines(found.lines, OF_DATASETS),
        *_of_images(found.records, config.strict),
        *_of_sizes(found.usable),
        *measured_findings(survey, found, measured, config),
    ]
    kinds = {finding.kind for finding in findings}
    double = {kind for better, kind in _SAID_BETTER if better in kinds}
    return [finding for finding in findings if finding.kind not in double]


def _stops(survey: DatasetSurvey, found: Understood, trained: bool) -> Iterator[Finding]:
    for text in found.stops:
        level, kind = named(text, OF_ERRORS, ("stop", "unreadable_dataset")) or OTHER
        if kind == "too_few_to_split":
            smaller = ", write split.group with smaller groups" if survey.groups else ""
            text += (
                f"; add images{smaller}, cut large ones into several files, or write predict_with "
                "to use the model of another dataset"
            )
        yield Finding(level, kind, text)
    shares = [record.class_shares for record in found.usable if record.class_shares]
    empty = shares and not any(share.get("foreground") for share in shares)
    if trained and empty and survey.task == "instances" and not found.splits:
        where = "the only label" if len(shares) == 1 else f"any of {len(shares)} labels"
        text = (
            f"no object in {where}; check {'it' if len(shares) == 1 else 'them'} (0 is background)"
        )
        yield Finding("stop", "no_objects", text, "labels")
    if not found.records or found.usable:
        return
    number = len(found.records)
    if trained and all(record.reason == "no label" for record in found.records):
        none = "the only image has no" if number == 1 else f"none of {number} images has a"
        text = f"{none} label; write labels, or predict_with to use a model"
        yield Finding("stop", "no_labels", text, "labels")
    else:
        none = "the only image is not" if number == 1 else f"none of {number} images is"
        yield Finding("stop", "none_usable", f"{none} usable; see the reasons")


def _of_lines(lines: Sequence[str], known: Known) -> Iterator[Finding]:
    for text in lines:
        if named_as := named(text, known, OTHER):
            yield Finding(*named_as, text)


def _of_images(records: Sequence[ImageRecord], strict: bool) -> Iterator[Finding]:
    """One finding for all images with the same warning, or left out for the same reason.

    Args:
        strict: whether the first bad image stops the run.
    """
    warned = [(record.image, text) for record in records for text in record.warnings]
    for where, text in merged(warned):
        level, kind = named(text, OF_IMAGES, OTHER) or OTHER
        yield Finding(level, kind, text, where)
    bad = [(record.image, record.reason) for record in records if record.status != "ok"]
    for where, reason in merged(bad):
        level, kind = named(reason, OF_REASONS, ("warn", "left_out")) or OTHER
        if strict:
            yield Finding("stop", kind, f"{reason} (strict: true)", where)
        else:
            yield Finding(level, kind, f"left out: {reason}", where)


def _of_sizes(usable: Sequence[ImageRecord]) -> Iterator[Finding]:
    without = [record.image for record in usable if record.pixel_size_um is None]
    if without:
        verb = "does" if len(without) == 1 else "do"
        some = f"{len(without)} of {len(usable)} images {verb} not say"
        every = "no image says" if len(without) == len(usable) else some
        yield Finding(
            "note",
            "no_pixel_size",
            f"{every} its pixel size; write pixel_size_um if images of other sizes will follow",
        )
    sizes = Counter(record.shape[1:] for record in usable)
    if len(sizes) > 1:
        listed = [f"{number} of {' x '.join(map(str, s))}" for s, number in sizes.most_common(4)]
        more = f" and {len(sizes) - 4} other sizes" if len(sizes) > 4 else ""
        yield Finding("note", "several_sizes", f"sizes in pixels: {', '.join(listed)}{more}")
    types = Counter(record.dtype for record in usable)
    if len(types) > 1:
        listed = [f"{number} of {name}" for name, number in types.most_common()]
        text = f"types of pixels differ: {', '.join(listed)}; save all images in the same way"
        yield Finding("warn", "mixed_types", text)
