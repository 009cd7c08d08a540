"""The pictures in the docs are drawn by a script that works, from the screen as it is."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
WIDTHS = (60, 100, 160)


def words(path: Path) -> str:
    text = "".join(ET.fromstring(path.read_text(encoding="utf-8")).itertext())
    return text.replace("\xa0", " ")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    specification = importlib.util.spec_from_file_location("screens", ROOT / "docs" / "screens.py")
    assert specification is not None
    assert specification.loader is not None
    screens = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(screens)
    paths: list[Path] = screens.draw(tmp_path_factory.mktemp("pictures"), WIDTHS)
    return paths


def test_a_picture_is_drawn_for_each_width_without_anything_from_elsewhere(
    drawn: list[Path],
) -> None:
    assert [path.name for path in drawn] == [f"screen-{width}.svg" for width in WIDTHS]
    for path in drawn:
        assert "@font-face" not in path.read_text(encoding="utf-8")
        assert "inventory.py" in words(path)
        assert "full recompute" in words(path)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_pictures_of_the_docs_show_the_same_screen(drawn: list[Path], width: int) -> None:
    """Times differ from machine to machine, and with them what there is time to repair."""
    shown, now = ROOT / "docs" / f"screen-{width}.svg", drawn[WIDTHS.index(width)]
    for said in ("14:03:22", "15 lines added, 15 removed", "14:03:31", "1 line added", "kept 1,"):
        assert said in words(shown)
        assert said in words(now)
