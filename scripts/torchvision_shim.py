# SPDX-License-Identifier: Apache-2.0
"""Make a CUDA-only torchvision wheel importable beside a CPU build of torch.

Such a wheel cannot load its compiled operators. torchvision tolerates that, except that it attaches
fake kernels to ``nms`` and ``qnms`` unconditionally, which fails with "operator torchvision::nms
does not exist". Declaring the two schemas beforehand is enough: resizing and tensor conversion are
plain torch. The two operators stay unusable.

``python scripts/torchvision_shim.py`` installs the work-around into the interpreter that runs it,
for every process of that environment, or says that nothing is needed. Delete the two files it names
before installing a torchvision that matches torch: that one declares the schemas itself.

This file is also the module that gets installed, so it must stay free of imports beyond the
standard library, and cheap ones at that: the interpreter imports it at every start.
"""

import sys

MODULE_NAME = "_torchvision_cpu_shim"
PTH_NAME = "verl_ext_torchvision_shim.pth"
_OPERATORS = ("nms", "qnms")
_SCHEMA = "{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_library = None


def install() -> bool:
    """Declare the missing operator schemas, unless this torch has an accelerator or knows them.

    Returns whether anything was declared. Imports torch.
    """
    global _library
    import torch

    if _library is not None or torch.version.cuda is not None or torch.version.hip is not None:
        return False
    missing = [name for name in _OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return False
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        _library.define(_SCHEMA.format(name=name))
    return True


class _FirstImportHook:
    """Meta path entry that runs ``install`` just before torchvision is first imported."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Find nothing, ever; the regular finders go on to locate torchvision."""
        if fullname == "torchvision":
            import contextlib

            sys.meta_path.remove(self)
            with contextlib.suppress(ImportError):
                install()


def activate() -> None:
    """Register the hook; called from the ``.pth`` file at interpreter start. Does not import torch."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _FirstImportHook())


def _torchvision_error() -> str | None:
    """The last line of the error that ``import torchvision`` raises in a fresh process, or None."""
    import subprocess

    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else (lines[-1] if lines else f"exit status {done.returncode}")


def main() -> int:
    """Install the hook into this interpreter's site-packages if torchvision needs it."""
    import shutil
    import sysconfig
    from pathlib import Path

    error = _torchvision_error()
    if error is None:
        print("torchvision imports fine: nothing to do")
        return 0
    if "torchvision::" not in error:
        print(f"torchvision fails for another reason, left alone: {error}", file=sys.stderr)
        return 1
    site_packages = Path(sysconfig.get_paths()["purelib"])
    module, pth = site_packages / f"{MODULE_NAME}.py", site_packages / PTH_NAME
    shutil.copyfile(__file__, module)
    pth.write_text(f"import {MODULE_NAME}; {MODULE_NAME}.activate()\n")
    error = _torchvision_error()
    if error is not None:
        module.unlink()
        pth.unlink()
        print(f"torchvision still fails, work-around removed: {error}", file=sys.stderr)
        return 1
    print(f"installed {module} and {pth}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
