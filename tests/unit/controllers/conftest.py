"""Loads fake_api.py beside this file (tests are not a package)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME = "controllers_fake_api"
if _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("fake_api.py"))
    assert _spec and _spec.loader
    sys.modules[_NAME] = _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
