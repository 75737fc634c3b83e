"""The packages of the wheel; everything else about the project is in pyproject.toml.

The weights are in the top-level folder checkpoints/. As a package of data, it becomes camo/checkpoints/ where camo is installed.
"""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["camo", "camo.*"]), "camo.checkpoints"], package_dir={"camo.checkpoints": "checkpoints"})
