from setuptools import setup

setup(
    packages=["fastencode", "fastencode.kernels", *[f"fastencode.{r}" for r in ("solve", "timing", "speech", "data", "tune", "study", "cli")]],
    package_dir={"fastencode": "src/fastencode", "fastencode.kernels": "kernels"},
)
