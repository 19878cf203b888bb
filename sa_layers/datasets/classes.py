"""The classes of the shapes data set and the colours in which they are displayed."""

CLASSES: tuple[str, ...] = ("circle", "star", "triangle")
"""Class names, sorted so that all annotation formats use the same order: class i of the classification folders is value
i + 1 in the label maps and category id i + 1 in COCO."""

LABELS: tuple[str, ...] = ("background", *CLASSES)
"""Name of each value of a label map: 0 is the background, followed by the classes."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 42, 51),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
)
"""RGB colour of each entry of ``LABELS``. The classes use the colour-blind safe palette of Okabe and Ito."""
