"""Warnings about labels of other images, by hand."""

from __future__ import annotations

from unet.evaluation.audit.audit_summary import AuditSummary
from unet.evaluation.audit.doubts import LEVEL, Doubt
from unet.evaluation.audit.exchanged_warnings import exchanged_warnings


def whole(image: str, match: str, confidence: float = 0.9, kind: str = "exchanged") -> Doubt:
    box = ((0, 0), (9, 9))
    return Doubt(image, 0, kind, confidence, "", (4.0, 4.0), *box, 81, match=match)


def looked_at(model: str, usual: float = 0.9) -> AuditSummary:
    return AuditSummary(model, 9, 9, 0, 90, 0.9, usual, 3)


def test_warnings_about_whole_labels_by_hand() -> None:
    summary = looked_at("m")
    end = "it counts in all scores until corrected"
    # b is not in doubt; what d fits is unknown; e is not sure enough; f is no whole label.
    doubts = [
        whole("a", "b"), whole("d", "", LEVEL), whole("e", "g", 0.49), whole("f", "", 0.9, "denied")
    ]  # fmt: skip
    assert exchanged_warnings([(summary, doubts)]) == [
        f"check the label of a: it probably belongs to b; {end}",
        f"check the label of d: it probably belongs to another image; {end}",
    ]
    # Three labels that moved on by one image, and many of them.
    ring = [whole("a", "b"), whole("b", "c"), whole("c", "a")]
    said = exchanged_warnings([(summary, ring)])
    assert [line.split(";")[0][-1] for line in said] == ["b", "c", "a"]
    many = exchanged_warnings([(summary, [whole(f"i{k}", "x") for k in range(7)])])
    assert len(many) == 6
    assert many[-1] == "exchanged labels: 2 more lines like these, see m/audit.csv"


def test_what_several_models_say_of_whole_labels_is_said_once() -> None:
    pair, one = [whole("a", "b"), whole("b", "a")], [whole("a", "b", 0.6)]
    end = "corrected"
    both = [
        f"check the labels of a and b: probably exchanged; they count in all scores until {end}"
    ]
    m1, m2, blind = looked_at("m1"), looked_at("m2"), looked_at("m3", 0.1)
    assert exchanged_warnings([(m1, pair), (m2, one)]) == both
    assert exchanged_warnings([(m2, one), (m1, pair), (blind, [whole("z", "y")])]) == both
    # Each model doubts one of the two labels.
    assert exchanged_warnings([(m1, one), (m2, pair[1:])]) == both
    # The models disagree: the surer one counts, and no label is doubted twice.
    other = [whole("a", "c", 0.95), whole("c", "a", 0.95), whole("d", "a", 0.5)]
    assert exchanged_warnings([(m1, pair), (m2, other), (m1, [whole("d", "b", 0.7)])]) == [
        both[0].replace("a and b", "a and c"),
        f"check the label of b: it probably belongs to a; it counts in all scores until {end}",
        f"check the label of d: it probably belongs to b; it counts in all scores until {end}",
    ]
    many = [whole(f"i{k}", "x") for k in range(6)]
    assert exchanged_warnings([(m1, many), (m2, many)])[-1] == (
        "exchanged labels: 1 more line like these, see m1/audit.csv and m2/audit.csv"
    )
