"""The classes of the shapes data set and the colours to show them in."""

CLASSES: tuple[str, ...] = ("circle", "star", "triangle")
"""Class names, sorted as classification folders are, so that every face numbers the classes alike: index i is category
id i + 1 in COCO, value i + 1 in label maps, class i of the folders."""

LABELS: tuple[str, ...] = ("background", *CLASSES)
"""What each value of a label map means: 0 is background, then come the classes."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 42, 51),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
)
"""RGB of each entry of ``LABELS``; the classes have colours of Okabe and Ito, which colour-blind eyes tell apart."""
