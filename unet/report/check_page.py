"""The page of the check: what was understood of a dataset before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet.config.dataset_sections import DatasetSection
from unet.data.survey.facts import DatasetSurvey, SurveyedImage, SurveyedMasks
from unet.data.survey.findings import LEVELS
from unet.errors import how_many
from unet.planning.estimates import total
from unet.report.check_thumbnails import legend, thumbnails
from unet.report.checked import Checked
from unet.report.numbers import NO_VALUE, number
from unet.report.page_file import render, write_page

# Rows of the table of images, and of other lists; check.json has all.
LISTED_IMAGES, LISTED = 60, 20
WORDS = {"stop": "stop", "warn": "warning", "note": "note"}
ALIKE = {
    "same": "same pixels",
    "near": "nearly the same",
    "neighbours": "neighbours of one field",
}


@dataclass(frozen=True)
class Bar:
    """A channel's intensities as a small plot: where low, median and high lie on the dataset's
    scale, 0 to 100."""

    low: float
    median: float
    high: float
    text: str


def write_check_page(path: Path, checked: Checked, data: DatasetSection, root: Path) -> None:
    """Writes ``check.html`` of a dataset.

    Args:
        data: the dataset's section of the config.
        root: the folder that the images' paths are relative to.
    """
    write_page(path, check_page(checked, data, root))


def check_page(checked: Checked, data: DatasetSection, root: Path) -> str:
    """The text of the page (arguments as in :func:`write_check_page`)."""
    survey = checked.survey
    pictures = thumbnails(survey, data, root)
    scale = _scale(survey.images)
    return render(
        "check.html.j2",
        survey=survey,
        levels=level_counts(survey),
        words=WORDS,
        facts=understood(survey),
        images=[(image, _bars(image, scale)) for image in survey.images[:LISTED_IMAGES]],
        channels=max((len(image.low or ()) for image in survey.images), default=0),
        classes=[(each, _place(each.intensity, scale)) for each in survey.classes],
        objects=object_facts(survey),
        alike=survey.alike[:LISTED],
        alike_words=ALIKE,
        listed=LISTED,
        pictures=pictures,
        usable=sum(image.status == "ok" for image in survey.images),
        legend=legend(survey.task, data.class_names) if any(p.marks for p in pictures) else {},
        suggestions=checked.suggestions,
        estimates=checked.estimates,
        total=total(checked.estimates),
        number=number,
        byte_size=byte_size,
        percentage=percentage,
        times=times,
    )


def level_counts(survey: DatasetSurvey) -> dict[str, int]:
    """Level -> number of findings, the worst first; levels without any are left out."""
    count = Counter(finding.level for finding in survey.findings)
    return {level: count[level] for level in LEVELS if count[level]}


def understood(survey: DatasetSurvey) -> list[tuple[str, str]]:
    """Name and value of each fact about the dataset as a whole."""
    usable = [image for image in survey.images if image.status == "ok"]
    out = len(survey.images) - len(usable)
    found = [
        ("Task", f"{survey.task}, labels are {_kind(survey)}"),
        ("Layout", survey.layout),
        ("Images", f"{len(usable)} usable" + (f", {out} left out" if out else "")),
        ("With a label", f"{survey.labelled} of {len(usable)}"),
    ]
    if survey.images_alone:
        found.append(("Images without a label", _listed(survey.images_alone)))
    if survey.labels_alone:
        found.append(("Labels without an image", _listed(survey.labels_alone)))
    if survey.unread:
        kinds = (f"{count} {ending}" for ending, count in survey.unread.items())
        found.append(("Files not read", ", ".join(kinds)))
    found += [
        ("Axes", _counted(image.axes for image in usable)),
        ("Size, px", _counted((times(image.shape[1:]) for image in usable), LISTED // 2)),
        ("Type", _types(survey, usable)),
        ("Pixel size, µm", _counted(map(_micrometres, usable))),
        ("Channels", _counted(map(_channels, usable))),
    ]
    if survey.groups:
        found.append(("Groups", str(survey.groups)))
    if survey.measured < len(usable):
        found.append(("Measured", f"{how_many(survey.measured, 'image')}; the others only listed"))
    if middle := _middle(survey):
        found.append(("Objects and focus", middle))
    found += [(f"Masks of {each.tool}", _masks(each)) for each in survey.compared]
    return [(name, value) for name, value in found if value]


def _masks(found: SurveyedMasks) -> str:
    """How many of the test images have a mask of the tool that can be scored, as far as is known,
    and of what kind."""
    if not found.found:
        return "none that can be used"
    kinds = ", ".join(found.kinds)
    scored = found.found - len(found.unfit)
    text = f"{scored} of {how_many(found.tested, 'test image')} ({kinds})"
    if not found.unfit:
        return text
    number = how_many(len(found.unfit), "mask")
    of = "" if found.opened == found.found else f" of {found.opened} looked at"
    return f"{text}; {number}{of} cannot be scored"


def _middle(survey: DatasetSurvey) -> str:
    """Where large images were measured; "" if all were measured as a whole."""
    if not survey.middles:
        return ""
    some = f"{survey.middles} of {how_many(survey.measured, 'image')}"
    return f"measured in the middle {times(survey.middle)} px of {some}"


def _kind(survey: DatasetSurvey) -> str:
    kinds = {"instances": "numbers of objects", "binary": "masks of one value"}
    return kinds.get(survey.label_kind, survey.label_kind)


def _types(survey: DatasetSurvey, usable: Sequence[SurveyedImage]) -> str:
    text = _counted(image.dtype for image in usable)
    return f"{text}; the values need {survey.bits} bits" if survey.bits else text


def _micrometres(image: SurveyedImage) -> str:
    sizes = image.pixel_size_um
    if sizes is None:
        return "unknown"
    one = len(set(sizes)) == 1
    return f"{sizes[0]:.4g}" if one else " × ".join(f"{size:.4g}" for size in sizes)


def _channels(image: SurveyedImage) -> str:
    names = ", ".join(name for name in image.channels if name)
    count = image.shape[0] if image.shape else 0
    return f"{count} ({names})" if names else str(count)


def _counted(values: Iterable[str], most: int = LISTED) -> str:
    """The different values, the most frequent first, with their number if there are several."""
    count = Counter(value for value in values if value)
    if len(count) <= 1:
        return next(iter(count), "")
    shown = [f"{value} ({times_} images)" if times_ > 1 else f"{value} (1 image)"
             for value, times_ in count.most_common(most)]  # fmt: skip
    more = len(count) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED // 2
    shown = ", ".join(names[: LISTED // 2])
    return f"{len(names)}: {shown}" + (f" and {more} more" if more > 0 else "")


def object_facts(survey: DatasetSurvey) -> list[tuple[str, str]]:
    """Name and value of each fact about the objects; empty without any."""
    found = survey.objects
    if found is None:
        return []
    if not found.count:
        return [("Objects", "0")]
    where = _middle(survey)
    volume = any(len(image.shape) == 4 for image in survey.images)
    facts = [
        ("Objects", f"{found.count:,}" + (f", {where}" if where else "")),
        ("Per image", "" if found.per_image is None else _range(found.per_image)),
        ("Diameter, px", _percentiles(found.diameter)),
        ("Volume, voxels" if volume else "Area, px", _percentiles(found.area)),
        ("Touching another one", percentage(found.touching)),
        ("Cut by the image's edge", "" if found.at_edge is None else percentage(found.at_edge)),
        ("With holes", f"{found.with_holes:,}"),
        ("Numbers in several pieces", f"{found.in_pieces:,}"),
    ]
    if found.empty_images:
        facts.append(("Images without an object", _listed(found.empty_images)))
    return [(name, value) for name, value in facts if value]


def _range(counts: tuple[int, float, int]) -> str:
    least, middle, most = counts
    return f"median {middle:g}, from {least:,} to {most:,}"


def _percentiles(values: tuple[float, float, float]) -> str:
    low, middle, high = (f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in values)
    return f"median {middle}, 5 % below {low}, 5 % above {high}"


def _scale(images: Iterable[SurveyedImage]) -> tuple[float, float]:
    """The lowest and the highest intensity of the plots."""
    shown = list(images)
    lows = [value for image in shown for value in image.low or ()]
    highs = [value for image in shown for value in image.high or ()]
    return min([0.0, *lows]), max(highs, default=1.0)


def _place(value: float | None, scale: tuple[float, float]) -> float | None:
    low, high = scale
    if value is None or high <= low:
        return None
    return min(100.0, max(0.0, 100 * (value - low) / (high - low)))


def _bars(image: SurveyedImage, scale: tuple[float, float]) -> list[Bar]:
    found = []
    channels = zip(image.low or (), image.median or (), image.high or (), strict=True)
    for low, median, high in channels:
        left, middle, right = (_place(value, scale) or 0.0 for value in (low, median, high))
        found.append(Bar(left, middle, right, f"{low:.5g} to {high:.5g}, median {median:.5g}"))
    return found


# Formats.

_UNITS = ("kB", "MB", "GB", "TB")


def byte_size(size: float | None) -> str:
    """Formats bytes: ``3 MB``, ``1.2 GB``."""
    if size is None:
        return NO_VALUE
    value, unit = size / 1e3, 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1e3, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 9.95 and unit > 1 else (
        f"{max(1, round(value))} {_UNITS[unit]}"
    )  # fmt: skip


def percentage(share: float | None) -> str:
    """Formats a share (0 to 1): two digits below 10 %."""
    if share is None:
        return NO_VALUE
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.2g} %"


def times(shape: Sequence[int]) -> str:
    """Formats a shape: ``512 × 512``."""
    return " × ".join(map(str, shape))
