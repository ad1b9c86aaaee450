"""What a model's audit looked at, and whether the model is good enough to judge labels."""

from __future__ import annotations

from dataclasses import dataclass

# Below these, a model is too poor to judge labels: how far model and labels agree on objects or
# pixels, and correlation of a label with its own prediction.
POOR_AGREEMENT, POOR_CORRELATION = 0.4, 0.5
# Below this agreement many doubts are mistakes of the model. Classes agree on more than objects do:
# outlines may differ by some pixels.
WEAK_OBJECTS, WEAK_CLASSES = 0.8, 0.95


@dataclass(frozen=True)
class AuditSummary:
    """What a model's audit looked at; attributes as in
    :class:`unet.evaluation.audit.audit_model.Audit`, ``doubts`` is their number."""

    model: str
    labelled: int
    images: int
    validation: int
    objects: int | None
    agreement: float
    usual: float | None
    doubts: int

    @property
    def blind(self) -> bool:
        """Whether the model is too poor even to say that a label belongs to another image."""
        return self.usual is not None and self.usual < POOR_CORRELATION

    @property
    def poor(self) -> bool:
        """Whether the model is too poor to judge parts of labels. A model that joins or splits most
        objects can still see where they are, so exchanged labels are another matter."""
        return self.blind or self.agreement < POOR_AGREEMENT

    @property
    def weak(self) -> bool:
        """Whether most of its doubts are probably its own mistakes."""
        limit = WEAK_CLASSES if self.objects is None else WEAK_OBJECTS
        return not self.poor and self.agreement < limit
