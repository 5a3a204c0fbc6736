import pytest
from root import ROOT


def test_the_wheel_holds_every_package():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "adain_core").rglob("__init__.py")}
    assert set(listed) == {".".join(folder.parts) for folder in folders} | {"adain_core.weights_data"}
