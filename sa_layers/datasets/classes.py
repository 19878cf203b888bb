"""The five classes of the shapes data set and the colours to show them in."""

CLASSES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
"""Class names. Index i is category id i + 1 in COCO, value i + 1 in label maps, index i among classification folders
once given explicitly (folders sort by name)."""

LABELS: tuple[str, ...] = ("background", *CLASSES)
"""What each value of a label map means: 0 is background, 1 to 5 are the classes."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (38, 42, 51),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
)
"""RGB of each entry of ``LABELS``; the classes have colours of Okabe and Ito, which colour-blind eyes tell apart."""
