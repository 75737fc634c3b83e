"""The packages of the wheel; everything else about the project is in pyproject.toml.

The weights are in the top-level folder checkpoints/. As a package of data, it becomes camo/checkpoints/ where camo is installed. In the same way
page/dist/, once ``make page`` has built it, becomes camo/page/built/.
"""

from pathlib import Path

from setuptools import find_packages, setup

data = {"camo.checkpoints": "checkpoints"}
if Path("page/dist/index.html").is_file():
    data["camo.page.built"] = "page/dist"
setup(packages=[*find_packages(include=["camo", "camo.*"]), *data], package_dir=data)
