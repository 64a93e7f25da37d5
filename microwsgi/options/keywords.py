"""The types of the options as keyword arguments: `**options: Unpack[OptionValues]`. Type checkers read keywords.pyi.

That file is generated from the declaration: `python -m microwsgi.options keywords > microwsgi/options/keywords.pyi`.
Annotations are not evaluated when the program runs, so these names only have to exist: the import of typing takes 2 ms.
"""

from __future__ import annotations

Unpack = dict
OptionValues = object
