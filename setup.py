"""Packaging metadata, read from settings.ini: the one place where they are written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
meta = config["DEFAULT"]

setup(
    version=meta["version"],
    description=meta["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author=meta["author"],
    author_email=meta["author_email"],
    keywords=meta["keywords"].split(),
    packages=find_packages(include=["simsiam_explained", "simsiam_explained.*"]),
    install_requires=meta["requirements"].split(),
    extras_require={"dev": meta["dev_requirements"].split()},
    entry_points={
        "console_scripts": meta["console_scripts"].split(),
        "nbdev": [f"{meta['lib_name']}={meta['lib_path']}._modidx:d"],
    },
)
