"""Packages, extensions and package data; everything else about the project is in pyproject.toml.

Environment variables, read when the package is built:

FASTENCODE_NO_EXT=1       build no extension: the slower NumPy fallbacks are used
FASTENCODE_REQUIRE_EXT=1  a failing or missing compiler is an error instead of a fallback
FASTENCODE_NATIVE=1       compile for this machine's processor only (-march=native)
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

KERNELS = Path("kernels")
GENERATED = "build/cython"
FAILURES = (BaseError, CCompilerError, ImportError, OSError)


def switch(name: str) -> bool:
    """Whether an on/off environment variable is on."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no")


def find_extensions() -> list[Extension]:
    """One extension for each ``kernels/*.pyx``, named as it is imported."""
    if switch("FASTENCODE_NO_EXT"):
        if switch("FASTENCODE_REQUIRE_EXT"):
            raise SystemExit("FASTENCODE_NO_EXT and FASTENCODE_REQUIRE_EXT contradict each other: unset one of them")
        return []
    headers = sorted(path.as_posix() for path in KERNELS.iterdir() if path.suffix in (".cuh", ".hpp"))
    return [
        Extension(
            f"fastencode.kernels.{source.stem}",
            [source.as_posix()],
            language="c++",
            include_dirs=[KERNELS.as_posix()],
            depends=headers,
        )
        for source in sorted(KERNELS.glob("*.pyx"))
    ]


class OptionalBuildExt(build_ext):
    """Compile what can be compiled; go on without the rest, unless FASTENCODE_REQUIRE_EXT says otherwise.

    ``Extension(optional=True)`` cannot do this: cythonize drops the flag.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # the flags below come from the environment, which no time stamp records
        self.into_source_tree = bool(self.inplace)

    def run(self) -> None:
        try:
            super().run()
        except FAILURES as error:  # no usable compiler at all
            for extension in self.extensions:
                self.give_up(extension, error)

    def build_extension(self, ext: Extension) -> None:
        try:
            self.compile(ext)
        except FAILURES as error:
            self.give_up(ext, error)

    def compile(self, ext: Extension) -> None:
        from Cython.Build import cythonize  # only a build that compiles needs it, not one that reads metadata

        msvc = self.compiler.compiler_type == "msvc"
        ext.extra_compile_args = ["/O2"] if msvc else ["-O3", "-g0"]
        if switch("FASTENCODE_NATIVE") and not msvc:
            ext.extra_compile_args.append("-march=native")
        (generated,) = cythonize([ext], build_dir=GENERATED, language_level=3, quiet=True)
        ext.sources = generated.sources
        super().build_extension(ext)

    def give_up(self, ext: Extension, error: Exception) -> None:
        if switch("FASTENCODE_REQUIRE_EXT"):
            raise SystemExit(
                f"FASTENCODE_REQUIRE_EXT is set, but {ext.name} could not be compiled: {error}\n"
                "Install a C++ compiler (Debian: apt install g++; macOS: xcode-select --install), "
                "or unset FASTENCODE_REQUIRE_EXT to use the slower fallback."
            ) from error
        self.warn(f"{ext.name} was not compiled ({error}); its slower fallback will be used")
        self.remove_stale(ext)
        # get_outputs, get_output_mapping and the copy into the source tree all read this list.
        self.extensions = [other for other in self.extensions if other is not ext]

    def remove_stale(self, ext: Extension) -> None:
        """An earlier build's library must not pass for this one's."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)
        if self.into_source_tree:
            (KERNELS / target.name).unlink(missing_ok=True)


setup(
    packages=[*find_packages("src"), "fastencode.kernels"],
    package_dir={"": "src", "fastencode.kernels": "kernels"},
    package_data={
        "fastencode": ["py.typed"],
        "fastencode.kernels": ["*.cu", "*.cuh"],
        "fastencode.runs.studies": ["templates/*.yaml"],
        "fastencode.speech": ["small/*"],
        "fastencode.study.report": ["*.html*"],
    },
    ext_modules=find_extensions(),
    cmdclass={"build_ext": OptionalBuildExt},
)
