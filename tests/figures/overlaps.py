"""Whether anything on a sheet lies on something else, or beside the sheet."""

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox


def check_no_overlap(figure: Figure) -> None:
    """Panels, headings, titles and what is written under panels keep clear of each other and on the sheet."""
    panels = [axes.get_window_extent() for axes in figure.axes]
    texts = [text.get_window_extent() for text in figure.texts if text.get_text()]
    under = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_gid() == "under"]
    under += [child.get_tightbbox() for axes in figure.axes for child in axes.child_axes]
    boxes = panels + texts + under
    for index, box in enumerate(boxes):
        assert within(box, figure.bbox), box
        for other in boxes[:index]:
            assert not overlap(box, other), (box, other)


def overlap(one: Bbox, other: Bbox) -> bool:
    """By more than half a pixel: neighbours may share an edge."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide > 0.5 and high > 0.5


def within(box: Bbox, sheet: Bbox) -> bool:
    return box.x0 >= sheet.x0 - 0.5 and box.y0 >= sheet.y0 - 0.5 and box.x1 <= sheet.x1 + 0.5 and box.y1 <= sheet.y1 + 0.5
