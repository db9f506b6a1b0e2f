"""Pillow's modules for each format of images, imported: Gradio asks for all of them when it is imported."""

from __future__ import annotations

import PIL.Image

PIL.Image.init()
